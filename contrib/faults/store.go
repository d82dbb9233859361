package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
)

var storeScenarios = []scenario{
	{id: "F-1, F-2", name: "validator that hangs", run: validatorHangs},
}

// A keyring is a validator that knows the credentials of the first senders, and whose
// lookups pass through a function.
type keyring struct {
	senders int
	asked   atomic.Int64
	// fault runs before each lookup. It returns the error of the lookup, or nil.
	fault func(ctx context.Context, c senderauth.Credentials) error
}

// good returns the n-th pair of credentials.
func good(n int) senderauth.Credentials {
	return senderauth.Credentials{SenderID: fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", n+1), APIKey: fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-%012x", n+1)}
}

// bad returns the n-th pair of a good sender and a key that nobody was issued.
func bad(n int) senderauth.Credentials {
	c := good(n)
	c.APIKey = fmt.Sprintf("badc0ffe-6f52-4c8a-b1d7-%012x", n+1)
	return c
}

func (k *keyring) Validate(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	k.asked.Add(1)
	if k.fault != nil {
		if err := k.fault(ctx, c); err != nil {
			return senderauth.Sender{}, err
		}
	}
	var n int
	if _, err := fmt.Sscanf(c.APIKey, "0b9d3c1e-6f52-4c8a-b1d7-%012x", &n); err != nil || n < 1 || n > k.senders {
		return senderauth.Sender{}, senderauth.ErrInvalidKey
	}
	if c.SenderID != good(n-1).SenderID {
		return senderauth.Sender{}, senderauth.ErrKeyMismatch
	}
	return senderauth.Sender{ID: c.SenderID, KeyID: fmt.Sprint("key-", n)}, nil
}

// The validator hangs. Cached pairs are served as before. All others get 503 when the
// timeout of the lookup has passed: they reach no handler and cost nothing.
func validatorHangs(e *env) {
	const senders, timeout = 50, 500 * time.Millisecond
	var hangs atomic.Bool
	var timeouts atomic.Int64
	keys := &keyring{senders: 10_000, fault: func(ctx context.Context, _ senderauth.Credentials) error {
		if !hangs.Load() {
			return nil
		}
		select {
		case <-ctx.Done():
			timeouts.Add(1)
			return ctx.Err()
		case <-time.After(10 * time.Second):
			return errors.New("the validator was not interrupted")
		}
	}}
	i := e.start(config{Validator: keys, TTL: time.Hour, Timeout: timeout})
	cached := func(n int) request { return request{to: i, credentials: good(n % senders), kind: "cached"} }
	e.burst(senders, cached)
	perSecond := pick(e, 100, 500)
	e.held("%d requests/s of cached pairs, 200 uncached at once", perSecond)

	calm := e.startLoad(perSecond, cached)
	e.sleep(pick(e, time.Second, 10*time.Second))
	baseline := calm.stop()

	hangs.Store(true)
	served, charged, asked := i.served.Load(), i.charged.Load(), keys.asked.Load()
	hanging := e.startLoad(perSecond, cached)
	uncached := e.burst(200, func(n int) request { return request{to: i, credentials: good(senders + n), kind: "uncached"} })
	e.sleep(pick(e, 500*time.Millisecond, 9*time.Second))
	during := hanging.stop()

	e.injected(int(timeouts.Load()), "%d lookups hung until their timeout of %v", timeouts.Load(), timeout)
	e.judge(append(baseline, during...), wants(200))
	e.judge(uncached, func(a answer) string {
		if a.status != 503 || a.retryAfter == "" {
			return "not 503 with Retry-After"
		}
		return ""
	})
	e.want(i.served.Load()-served == int64(len(during)), "an uncached request reached the handler")
	e.want(i.charged.Load()-charged == int64(len(during)), "an uncached request was charged")
	e.want(keys.asked.Load()-asked == timeouts.Load(), "a cached pair was looked up")
	e.within(timeout+200*time.Millisecond, slowest(uncached), "slowest 503")
	e.within(2*quantile(baseline, 0.99)+jitter, quantile(during, 0.99), "p99 of cached pairs")
	e.lose("200 uncached requests answered 503 within %v", slowest(uncached).Round(time.Millisecond))
}

// wants judges that an answer has this status.
func wants(status int) func(answer) string {
	return func(a answer) string {
		if a.status != status {
			return fmt.Sprintf("not %d", status)
		}
		return ""
	}
}
