package redislimit

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// A line carries commands to Redis. With few callers each sends its own; of
// many, those who come while flying calls are under way go together in the
// next one, in one write and one read: with 64 callers on two cores that is
// twice the decisions.
//
// The AutoPipeliner of go-redis, which is experimental, does the like and does
// not do here: its commands have no deadline of their own, where a decision has
// milliseconds.
type line struct {
	client redis.UniversalClient

	mu     sync.Mutex
	flying int
	next   *batch // that waits for one of them to land
}

const (
	// More calls at once cost more than they bring: Redis works at one at a
	// time.
	enoughFlying = 2
	// Where the way is long, they cost nothing: a batch that has waited for
	// patience goes all the same, unless a pool of connections could be busy.
	maxFlying = 8
	patience  = time.Millisecond
)

type batch struct {
	cmds  []redis.Cmder
	start chan struct{} // closed: the one who made the batch sends it
	done  chan struct{} // closed: the commands have their replies
	late  bool          // has waited for patience, in vain
}

// send returns when cmd has its reply or an error, at the latest when the first
// of those it goes with is out of time: ctx must have a deadline.
func (n *line) send(ctx context.Context, cmd redis.Cmder) error {
	n.mu.Lock()
	if n.flying < enoughFlying {
		n.flying++
		n.mu.Unlock()
		defer n.landed()
		return n.client.Process(ctx, cmd)
	}
	b := n.next
	if b != nil {
		b.cmds = append(b.cmds, cmd)
		n.mu.Unlock()
		<-b.done
		return cmd.Err()
	}
	b = &batch{cmds: []redis.Cmder{cmd}, start: make(chan struct{}), done: make(chan struct{})}
	n.next = b
	n.mu.Unlock()
	defer close(b.done)
	impatient := time.NewTimer(patience)
	defer impatient.Stop()
	for waiting := true; waiting; {
		select {
		case <-b.start:
			waiting = false
		case <-impatient.C:
			n.depart(b)
		case <-ctx.Done():
			if !n.withdraw(b) {
				<-b.start
				n.landed()
			}
			for _, c := range b.cmds {
				c.SetErr(ctx.Err())
			}
			return ctx.Err()
		}
	}
	defer n.landed()
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

// landed lets the next batch go, unless so many fly that it had better wait for
// company.
func (n *line) landed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next == nil || n.flying > enoughFlying && !n.next.late {
		n.flying--
		return
	}
	close(n.next.start)
	n.next = nil
}

// depart lets a batch go that has waited long enough.
func (n *line) depart(b *batch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != b {
		return
	}
	if b.late = n.flying >= maxFlying; !b.late {
		n.flying++
		n.next = nil
		close(b.start)
	}
}

// withdraw takes back a batch that was not let go.
func (n *line) withdraw(b *batch) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.next != b {
		return false
	}
	n.next = nil
	return true
}
