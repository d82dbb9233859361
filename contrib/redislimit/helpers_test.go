package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

var ctx = context.Background()

// patient is a Config.Timeout that no call reaches while Redis runs, however busy the machine
// is.
const patient = 20 * time.Second

func contains(s string, all ...string) bool {
	for _, part := range all {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

// shared returns a client of the server that tests share, which they must leave intact.
func shared(t testing.TB) redis.UniversalClient {
	t.Helper()
	if url := os.Getenv("SENDERAUTH_TEST_REDIS"); url != "" {
		o, err := redis.ParseURL(url)
		require.NoError(t, err)
		o.ContextTimeoutEnabled = true
		c := redis.NewClient(o)
		t.Cleanup(func() {
			for keys := c.Scan(ctx, 0, "{"+t.Name()+"*", 1000).Iterator(); keys.Next(ctx); {
				require.NoError(t, c.Del(ctx, keys.Val()).Err())
			}
			c.Close()
		})
		return c
	}
	c := startServer(t, "redis-server").client()
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, c redis.UniversalClient, cfg redislimit.Config) *redislimit.Limiter {
	t.Helper()
	if cfg.Instances == 0 && !cfg.FailClosed && cfg.CountInstances == nil {
		cfg.Instances = 1
	}
	if cfg.Prefix == "" {
		cfg.Prefix = prefix(t)
	}
	l, err := redislimit.New(c, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l
}

var prefixes sync.Map

// prefix returns a Config.Prefix that all limiters of a test share, and that differs in
// each run.
func prefix(t testing.TB) string {
	p, _ := prefixes.LoadOrStore(t, fmt.Sprintf("%s-%x", t.Name(), rand.Uint64()))
	return p.(string)
}

// inBoth runs a test in exact and in lease mode.
func inBoth(t *testing.T, f func(t *testing.T, lease time.Duration)) {
	t.Run("exact", func(t *testing.T) { f(t, 0) })
	t.Run("lease", func(t *testing.T) { f(t, 100*time.Millisecond) })
}

func charge(name string, l senderauth.Limit, cost int) senderauth.Charge {
	return senderauth.Charge{Name: name, Limit: l, Cost: cost}
}

// hourly returns a limit that refills too slowly for any test to notice.
func hourly(burst int) senderauth.Limit {
	return senderauth.Limit{Requests: 1, Per: time.Hour, Burst: burst}
}

func take(t testing.TB, l *redislimit.Limiter, sender string, c ...senderauth.Charge) []senderauth.Balance {
	t.Helper()
	b, err := l.Take(ctx, sender, c)
	require.NoError(t, err)
	return b
}

// commands returns how often Redis ran each command since the last call of commands.
func commands(t testing.TB, c *redis.Client) map[string]int {
	t.Helper()
	info, err := c.Info(ctx, "commandstats").Result()
	require.NoError(t, err)
	m := map[string]int{}
	for line := range strings.Lines(info) {
		if name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls="); ok {
			n, _, _ := strings.Cut(rest, ",")
			var calls int
			fmt.Sscan(n, &calls)
			m[name] = calls
		}
	}
	require.NoError(t, c.ConfigResetStat(ctx).Err())
	return m
}

// modes records the calls of OnMode.
type modes struct {
	mu  sync.Mutex
	all []redislimit.Mode
	why []error // of each change to the fallback
}

func (m *modes) add(mode redislimit.Mode, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if (mode == redislimit.Fallback) != (err != nil && !errors.Is(err, redislimit.ErrEvicts)) {
		mode = redislimit.Mode(fmt.Sprintf("%s with %v", mode, err))
	}
	m.all = append(m.all, mode)
	if err != nil {
		m.why = append(m.why, err)
	}
}

func (m *modes) are(want ...redislimit.Mode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Equal(m.all, want) {
		return fmt.Errorf("modes: %v, because of %w", m.all, errors.Join(m.why...))
	}
	return nil
}

// load calls Take from many goroutines until stop is called.
type load struct {
	admitted, refused, failed atomic.Int64
	slow                      atomic.Int64 // decisions that took more than ten seconds
	stop                      func()
}

func startLoad(l *redislimit.Limiter, goroutines int, c ...senderauth.Charge) *load {
	d := &load{}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
				}
				start := time.Now()
				b, err := l.Take(ctx, "a", c)
				if time.Since(start) > 10*time.Second {
					d.slow.Add(1)
				}
				switch {
				case err != nil:
					d.failed.Add(1)
				case b[0].Refused:
					d.refused.Add(1)
				default:
					d.admitted.Add(1)
				}
			}
		})
	}
	d.stop = func() { close(done); wg.Wait() }
	return d
}
