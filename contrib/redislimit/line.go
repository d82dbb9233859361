package redislimit

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A line carries commands to Redis. With few callers each command is a call of its own.
// Commands that come while enough calls are in flight go together in the next call, in one
// write and one read. With 64 callers on two cores this doubles the decisions (benchmarks,
// "exact").
//
// The AutoPipeliner of go-redis, which is experimental, does not fit: its commands have no
// deadline of their own, but a decision has milliseconds.
type line struct {
	client redis.UniversalClient

	mu       sync.Mutex
	inFlight int
	waiting  []*batch // for one of them to end, the oldest first
}

const (
	// More calls at once cost more than they gain, because Redis executes one at a time.
	enoughInFlight = 2
	// On a slow network more calls cost nothing, so a batch that has waited for patience
	// goes anyway, unless that could exhaust a pool of connections.
	maxInFlight = 8
	patience    = time.Millisecond
)

type batch struct {
	end   time.Time // the deadline of all its commands
	cmds  []redis.Cmder
	start chan struct{} // closed when the caller that made the batch must send it
	done  chan struct{} // closed when the commands have their replies
	late  bool          // it has waited for patience while maxInFlight calls were in flight
}

// send sends cmd and waits until it has its reply or an error. ctx must have a deadline.
func (n *line) send(ctx context.Context, cmd redis.Cmder) error {
	end, _ := ctx.Deadline()
	b, first := n.board(cmd, end)
	if b == nil {
		defer n.ended()
		return n.client.Process(ctx, cmd)
	}
	if !first {
		<-b.done
		return cmd.Err()
	}
	defer close(b.done)
	if err := n.await(ctx, b); err != nil {
		for _, c := range b.cmds {
			c.SetErr(err)
		}
		return err
	}
	defer n.ended()
	if len(b.cmds) == 1 {
		return n.client.Process(ctx, cmd)
	}
	pipe := n.client.Pipeline()
	for _, c := range b.cmds {
		_ = pipe.Process(ctx, c)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	return cmd.Err()
}

// board puts cmd into the youngest batch if that has the same deadline, or else into a new
// one, and reports whether it is the first of it. So no command gets less time because it
// shares a batch. board returns nil if so few calls are in flight that cmd goes by itself.
func (n *line) board(cmd redis.Cmder, end time.Time) (b *batch, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.inFlight < enoughInFlight {
		n.inFlight++
		return nil, false
	}
	if k := len(n.waiting); k > 0 && n.waiting[k-1].end.Equal(end) {
		b = n.waiting[k-1]
	} else {
		first = true
		b = &batch{end: end, start: make(chan struct{}), done: make(chan struct{})}
		n.waiting = append(n.waiting, b)
	}
	b.cmds = append(b.cmds, cmd)
	return b, first
}

// await waits until a batch may go. It returns the error of ctx if that ends first.
func (n *line) await(ctx context.Context, b *batch) error {
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	for {
		select {
		case <-b.start:
			return nil
		case <-impatient.C:
			n.hurry(b)
		case <-ctx.Done():
			if !n.withdraw(b) {
				<-b.start
				n.ended()
			}
			return ctx.Err()
		}
	}
}

// ended ends a call and lets the oldest batch go, unless enough calls are in flight for the
// batch to grow.
func (n *line) ended() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting) == 0 || n.inFlight > enoughInFlight && !n.waiting[0].late {
		n.inFlight--
		return
	}
	close(n.waiting[0].start)
	n.waiting = slices.Delete(n.waiting, 0, 1)
}

// hurry lets a batch go that has waited long enough.
func (n *line) hurry(b *batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.Index(n.waiting, b)
	if i < 0 {
		return
	}
	if b.late = n.inFlight >= maxInFlight; !b.late {
		n.inFlight++
		n.waiting = slices.Delete(n.waiting, i, i+1)
		close(b.start)
	}
}

// withdraw takes back a batch and returns true, unless the batch may already go.
func (n *line) withdraw(b *batch) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.Index(n.waiting, b)
	if i >= 0 {
		n.waiting = slices.Delete(n.waiting, i, i+1)
	}
	return i >= 0
}
