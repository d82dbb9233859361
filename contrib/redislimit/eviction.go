package redislimit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// ErrEvicts is the error that Config.OnMode gets with [Shared] if Redis may evict buckets
// when its memory is full. A sender whose bucket was evicted gets a new one, which is full.
// Set maxmemory-policy to noeviction, or give the limiter a Redis of its own.
var ErrEvicts = errors.New("redislimit: Redis may evict buckets, and then admits more than the limits")

// inspect looks at the eviction policy in the background, unless it has done so since the
// limiter last connected.
func (l *Limiter) inspect() {
	if l.inspected.Load() || l.inspected.Swap(true) {
		return
	}
	l.spawn(func() {
		ctx, cancel := context.WithTimeout(context.Background(), connectTimeout(l.timeout))
		defer cancel()
		l.reportEviction(l.evictionPolicy(ctx))
	})
}

// evictionPolicy returns the policy of a server that evicts keys, or the empty string. A
// server that does not tell, because the user may not run INFO, is taken not to evict.
func (l *Limiter) evictionPolicy(ctx context.Context) string {
	var mu sync.Mutex
	var found string
	look := func(ctx context.Context, c *redis.Client) error {
		info, err := c.Info(ctx, "memory").Result()
		if policy := evicting(info); err == nil && policy != "" {
			mu.Lock()
			defer mu.Unlock()
			found = policy
		}
		return nil // a server that does not answer hides no other
	}
	switch c := l.client.(type) {
	case *redis.Client:
		_ = look(ctx, c)
	case *redis.ClusterClient:
		_ = c.ForEachMaster(ctx, look)
	case *redis.Ring:
		_ = c.ForEachShard(ctx, look)
	}
	return found
}

// evicting returns the policy in an INFO reply, or the empty string if the server never
// evicts. Every bucket expires, so policies for expiring keys reach them, too.
func evicting(info string) string {
	fields := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	policy := fields["maxmemory_policy"]
	if fields["maxmemory"] == "0" || policy == "noeviction" {
		return ""
	}
	return policy
}

// reportEviction calls OnMode if the policy evicts and the one before did not.
func (l *Limiter) reportEviction(policy string) {
	l.mu.Lock()
	defer l.mu.Unlock() // after OnMode, so that its calls come in order
	if l.open > 0 {
		return // the next connection is inspected again
	}
	news := policy != "" && !l.evicts
	l.evicts = policy != ""
	if news && l.onMode != nil {
		l.onMode(Shared, fmt.Errorf("%w: maxmemory-policy is %s: set noeviction, or use a Redis of its own", ErrEvicts, policy))
	}
}
