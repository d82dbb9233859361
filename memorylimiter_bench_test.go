package senderauth

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkTake charges 200,000 senders in random order, as a guard does that
// remembers them (hinted) and as one that does not.
func BenchmarkTake(b *testing.B) {
	const senders = 200_000
	m := NewMemoryLimiter(MemoryLimiterConfig{})
	fast := PerSecond(1_000_000_000)
	charge := func(name string, l Limit) Charge { return Charge{Name: name, Limit: l, Cost: 1} }
	ids, hints := make([]string, senders), make([]accountHint, senders)
	one := []Charge{charge("default", fast)}
	two := []Charge{charge("default", fast), charge("sensitive", fast)}
	refused := []Charge{charge("drained", Limit{Requests: 1, Per: 10_000 * time.Hour, Burst: 1})}
	var buf [2]Balance
	for i := range ids {
		ids[i] = fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", i+1)
	}
	order := make([]int32, 1<<20)
	for i := range order {
		order[i] = rand.Int32N(senders)
	}
	for _, c := range []struct {
		name    string
		charges []Charge
	}{{"one charge", one}, {"two charges", two}, {"refused", refused}} {
		if c.name == "refused" {
			m, hints = NewMemoryLimiter(MemoryLimiterConfig{}), make([]accountHint, senders)
		}
		for range 2 {
			for i := range ids {
				m.take(buf[:0], ids[i], c.charges, &hints[i])
			}
		}
		for _, hinted := range []bool{true, false} {
			name := c.name + "/hinted"
			if !hinted {
				name = c.name + "/looked up"
			}
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					n := order[i&(len(order)-1)]
					var hint *accountHint
					if hinted {
						hint = &hints[n]
					}
					m.take(buf[:0], ids[n], c.charges, hint)
					i++
				}
			})
		}
		b.Run(c.name+"/one sender", func(b *testing.B) {
			for b.Loop() {
				m.take(buf[:0], ids[0], c.charges, &hints[0])
			}
		})
	}
}
