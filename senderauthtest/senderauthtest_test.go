package senderauthtest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderauthtest"
)

// limiterFunc is a function used as a Limiter.
type limiterFunc func(sender string, charges []senderauth.Charge) ([]senderauth.Balance, error)

func (f limiterFunc) Take(_ context.Context, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	return f(sender, charges)
}

func memory() senderauth.Limiter {
	return senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{Buckets: 64})
}

// around makes limiters that call change, which may ask the correct limiter l.
func around(change func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error)) func(*testing.T) senderauth.Limiter {
	return func(*testing.T) senderauth.Limiter {
		l := memory()
		return limiterFunc(func(sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
			return change(l, sender, charges)
		})
	}
}

func ask(l senderauth.Limiter, sender string, charges ...senderauth.Charge) ([]senderauth.Balance, error) {
	return l.Take(context.Background(), sender, charges)
}

// balances makes limiters that change the balances of a correct one.
func balances(change func(c senderauth.Charge, b *senderauth.Balance)) func(*testing.T) senderauth.Limiter {
	return around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		bs, err := ask(l, sender, charges...)
		for i := range bs {
			change(charges[i], &bs[i])
		}
		return bs, err
	})
}

// wrongLimiters are limiters with one fault each, by the test that must find it.
var wrongLimiters = map[string]func(*testing.T) senderauth.Limiter{
	"a bucket starts full and holds the burst": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		for i := range charges {
			if charges[i].Limit.Burst == 5 {
				charges[i].Limit.Burst = 6
			}
		}
		return ask(l, sender, charges...)
	}),
	"tokens flow back evenly, up to the burst": fixedWindow,
	"a refused charge takes nothing": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		bs, err := ask(l, sender, charges...)
		if err == nil && bs[0].Refused && charges[0].Cost > 1 {
			charges[0].Cost = 1
			ask(l, sender, charges...)
		}
		return bs, err
	}),
	"several charges are taken together or not at all": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		var all []senderauth.Balance
		for _, c := range charges {
			bs, err := ask(l, sender, c)
			if err != nil {
				return nil, err
			}
			all = append(all, bs...)
		}
		return all, nil
	}),
	"a cost of 0 only looks": balances(func(c senderauth.Charge, b *senderauth.Balance) {
		b.Refused = b.Refused || c.Cost == 0 && b.Remaining == 0
	}),
	"Unlimited keeps no bucket": balances(func(c senderauth.Charge, b *senderauth.Balance) {
		if c.Limit == senderauth.Unlimited() {
			b.Remaining = -1
		}
	}),
	"Blocked refuses forever": balances(func(c senderauth.Charge, b *senderauth.Balance) {
		if c.Limit == senderauth.Blocked() && b.Refused {
			b.RetryAfter = time.Hour
		}
	}),
	"a cost above the burst can never pass": balances(func(c senderauth.Charge, b *senderauth.Balance) {
		if c.Cost > c.Limit.Burst && b.RetryAfter < 0 {
			b.RetryAfter = time.Second
		}
	}),
	"waiting for RetryAfter is enough": balances(func(_ senderauth.Charge, b *senderauth.Balance) {
		if b.RetryAfter > 10 {
			b.RetryAfter -= 10
		}
	}),
	"a change of the limit keeps the tokens": limitInKey,
	"senders and names do not share buckets": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		for i := range charges {
			charges[i].Name, _, _ = strings.Cut(charges[i].Name, ":")
		}
		return ask(l, sender, charges...)
	}),
	"very large and very slow limits": balances(func(_ senderauth.Charge, b *senderauth.Balance) {
		b.Remaining = int(float32(b.Remaining))
	}),
	"parallel charges admit exactly the burst":             checkThenTake,
	"parallel charges of two buckets take both or neither": checkThenTake,
	"random schedules agree with the model":                fixedWindow,
	"mistakes of the caller are errors": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		bs, err := ask(l, sender, charges...)
		if err != nil {
			bs, err = make([]senderauth.Balance, len(charges)), nil
		}
		return bs, err
	}),
	"charges are neither changed nor kept": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		bs, err := ask(l, sender, charges...)
		charges[0].Cost = 0
		return bs, err
	}),
	"an ended context is not a refusal": func(*testing.T) senderauth.Limiter { return refusesEnded{memory()} },
	"an allowance is granted once in its period": balances(func(c senderauth.Charge, b *senderauth.Balance) {
		if c.Limit.Calendar.Unit() != "" {
			b.ResetAfter -= 2
		}
	}),
	"an allowance starts anew with its period": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		for i, c := range charges {
			if c.Limit.Calendar.Unit() == "day" {
				charges[i].Limit = senderauth.PerDay(c.Limit.Requests, nil)
			}
		}
		return ask(l, sender, charges...)
	}),
	"allowances and buckets are taken together or not at all": around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		if len(charges) < 2 {
			return ask(l, sender, charges...)
		}
		first, err := ask(l, sender, charges[:1]...)
		if err != nil {
			return nil, err
		}
		rest, err := ask(l, sender, charges[1:]...)
		return append(first, rest...), err
	}),
	"a bucket and the allowances of one name are apart": limitInKey,
	"parallel charges admit exactly the allowance": func(*testing.T) senderauth.Limiter {
		inner := memory()
		return limiterFunc(func(sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
			looks := append([]senderauth.Charge(nil), charges...)
			for i := range looks {
				looks[i].Cost = 0
			}
			bs, err := ask(inner, sender, looks...)
			time.Sleep(time.Millisecond)
			for i := range bs {
				bs[i].Refused = bs[i].Remaining < charges[i].Cost
				charges[i].Limit = senderauth.Unlimited() // it is decided
			}
			return bs, err
		})
	},
}

// fixedWindow gives the whole burst back at the start of each window.
func fixedWindow(*testing.T) senderauth.Limiter {
	start := time.Now()
	windows := map[time.Duration]senderauth.Limiter{}
	var mu sync.Mutex
	return limiterFunc(func(sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		mu.Lock()
		defer mu.Unlock()
		window := time.Since(start) / (20 * time.Millisecond)
		if windows[window] == nil {
			windows[window] = memory()
		}
		return ask(windows[window], sender, charges...)
	})
}

// limitInKey starts a new bucket whenever the limit of a name changes.
func limitInKey(*testing.T) senderauth.Limiter {
	var mu sync.Mutex
	limiters := map[senderauth.Limit]senderauth.Limiter{}
	return limiterFunc(func(sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		mu.Lock()
		defer mu.Unlock()
		l := limiters[charges[0].Limit]
		if l == nil {
			l = memory()
			limiters[charges[0].Limit] = l
		}
		return ask(l, sender, charges...)
	})
}

// checkThenTake looks at the buckets and charges them later, without a lock over
// both.
func checkThenTake(*testing.T) senderauth.Limiter {
	var mu sync.Mutex
	taken := map[string]int{}
	return limiterFunc(func(_ string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
		bs := make([]senderauth.Balance, len(charges))
		refused := false
		mu.Lock()
		for i, c := range charges {
			bs[i].Refused = taken[c.Name]+c.Cost > c.Limit.Burst
			refused = refused || bs[i].Refused
		}
		mu.Unlock()
		time.Sleep(time.Millisecond)
		if refused {
			return bs, nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, c := range charges {
			taken[c.Name] += c.Cost
		}
		return bs, nil
	})
}

type refusesEnded struct{ senderauth.Limiter }

func (r refusesEnded) Take(ctx context.Context, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	if ctx.Err() != nil {
		return []senderauth.Balance{{Refused: true, RetryAfter: time.Second}}, nil
	}
	return r.Limiter.Take(ctx, sender, charges)
}

const (
	active, other = "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d01", "0b9d3c1e-6f52-4c8a-b1d7-2e9f1a3c5d02"
	sender1       = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
	sender2       = "7a1de7b4-3a0e-4d6e-9c2b-000000000002"
)

func pairs() map[senderauthtest.State]senderauth.Credentials {
	return map[senderauthtest.State]senderauth.Credentials{
		senderauthtest.Active: {SenderID: sender1, APIKey: active},
		senderauthtest.Other:  {SenderID: sender2, APIKey: other},
	}
}

// store is a correct validator for pairs.
func store(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	for _, p := range pairs() {
		if p.APIKey == c.APIKey {
			if c.SenderID != "" && c.SenderID != p.SenderID {
				return senderauth.Sender{}, senderauth.ErrKeyMismatch
			}
			return senderauth.Sender{ID: p.SenderID}, nil
		}
	}
	return senderauth.Sender{}, senderauth.ErrInvalidKey
}

type validatorFunc = senderauth.ValidatorFunc

// wrongValidators are validators with one fault each, by the test that must find
// it.
var wrongValidators = map[string]validatorFunc{
	"active key": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := store(ctx, c)
		s.ID = strings.ToUpper(s.ID)
		return s, err
	},
	"active key, no sender named": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := store(ctx, c)
		s.ID = c.SenderID
		return s, err
	},
	"active key, another sender named": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := store(ctx, senderauth.Credentials{APIKey: c.APIKey})
		if err == nil && c.SenderID != "" {
			s.ID = c.SenderID
		}
		return s, err
	},
	"unknown key, an unknown sender named": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if c.SenderID != "" && c.SenderID != sender1 && c.SenderID != sender2 {
			return senderauth.Sender{}, senderauth.ErrKeyMismatch
		}
		return store(ctx, c)
	},
	"key that differs in its last character": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if strings.HasPrefix(c.APIKey, active[:35]) {
			return senderauth.Sender{ID: sender1}, nil
		}
		return store(ctx, c)
	},
	"unknown key": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		s, err := store(ctx, c)
		if err != nil {
			err = &spills{err, "key …" + c.APIKey[10:20]}
		}
		return s, err
	},
	"an ended context is not a refusal": func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if ctx.Err() != nil {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		return store(ctx, c)
	},
	"concurrent use": crowded(),
}

type spills struct {
	error
	text string
}

func (s *spills) Error() string { return s.text }
func (s *spills) Unwrap() error { return s.error }

// crowded refuses a call while another one is in flight.
func crowded() validatorFunc {
	var one sync.Mutex
	return func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		if !one.TryLock() {
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		defer one.Unlock()
		time.Sleep(time.Millisecond)
		return store(ctx, c)
	}
}

var lacks = []senderauthtest.State{
	senderauthtest.Second, senderauthtest.Expiring, senderauthtest.Disabled, senderauthtest.Rotated, senderauthtest.Expired,
	senderauthtest.NotYet, senderauthtest.Deleted, senderauthtest.DisabledSender, senderauthtest.DisabledBoth,
}

func TestSuitesPassCorrectImplementations(t *testing.T) {
	// This one runs on the real clock. The tests of senderauth use synctest's.
	t.Run("limiter", func(t *testing.T) {
		senderauthtest.TestLimiter(t, senderauthtest.LimiterConfig{
			New:       func(*testing.T) senderauth.Limiter { return memory() },
			Tolerance: time.Nanosecond,
		})
	})
	t.Run("limiter that refuses more", func(t *testing.T) {
		senderauthtest.TestLimiter(t, senderauthtest.LimiterConfig{
			New: around(func(l senderauth.Limiter, sender string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
				bs, err := ask(l, sender, charges...)
				for i := range bs {
					if c := charges[i]; c.Cost == 1 && !bs[i].Refused && bs[i].Remaining == 1 && c.Limit != senderauth.Unlimited() {
						bs[i].Refused, bs[i].RetryAfter = true, time.Hour
					}
				}
				return bs, err
			}),
			Run:          synctest.Test,
			Tolerance:    time.Nanosecond,
			MayAdmitLess: true,
		})
	})
	t.Run("validator", func(t *testing.T) {
		senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: validatorFunc(store), Keys: pairs(), Lacks: lacks})
	})
}

// TestSuitesFindEachFault runs itself once for each fault, in a process that must
// fail.
func TestSuitesFindEachFault(t *testing.T) {
	const variable = "SENDERAUTHTEST_FAULT"
	kind, fault, isChild := strings.Cut(os.Getenv(variable), "/")
	if isChild {
		switch kind {
		case "limiter":
			senderauthtest.TestLimiter(t, senderauthtest.LimiterConfig{New: wrongLimiters[fault], Run: synctest.Test, Tolerance: time.Nanosecond})
		case "validator":
			senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: wrongValidators[fault], Keys: pairs(), Lacks: lacks})
		case "config":
			senderauthtest.TestValidator(t, senderauthtest.ValidatorConfig{Validator: validatorFunc(store), Keys: pairs(), Lacks: lacks[1:]})
		}
		return
	}
	faults := map[string]string{"config/": "TestSuitesFindEachFault"}
	for fault := range wrongLimiters {
		faults["limiter/"+fault] = "TestSuitesFindEachFault/" + strings.ReplaceAll(fault, " ", "_")
	}
	for fault := range wrongValidators {
		faults["validator/"+fault] = "TestSuitesFindEachFault/" + strings.ReplaceAll(fault, " ", "_")
	}
	for fault, failing := range faults {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			_, test, _ := strings.Cut(failing, "/")
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuitesFindEachFault$/^"+regexp.QuoteMeta(test)+"$")
			cmd.Env = append(os.Environ(), variable+"="+fault)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: "+failing+" (") {
				t.Errorf("the fault was not found by %s (%v):\n%s", failing, err, out)
			}
		})
	}
}
