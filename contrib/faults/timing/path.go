package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A path is what a guess goes through until it is refused.
type path struct {
	name       string
	validator  func(real []senderauth.Credentials) (v senderauth.Validator, closeIt func() error, err error)
	cache      bool
	remembered bool // each guess was made before, so that the Cache answers it
	loopback   bool // over TCP, and not in process
	slow       bool // it has fewer samples
}

var paths = []path{
	{name: "Cache, remembered", validator: static, cache: true, remembered: true},
	{name: "Cache and Static", validator: static, cache: true},
	{name: "Static", validator: static},
	{name: "Cache and sqlkeys on SQLite", validator: sqlite, cache: true, slow: true},
	{name: "Cache and Static, over loopback", validator: static, cache: true, loopback: true, slow: true},
}

func static(real []senderauth.Credentials) (senderauth.Validator, func() error, error) {
	v, err := senderauth.Static(real...)
	return v, func() error { return nil }, err
}

func sqlite(real []senderauth.Credentials) (senderauth.Validator, func() error, error) {
	dir, err := os.MkdirTemp("", "senderauth-timing-")
	if err != nil {
		return nil, nil, err
	}
	db, err := sqlkeys.OpenDB(filepath.Join(dir, "keys.db"))
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	remove := func() error { return errors.Join(db.Close(), os.RemoveAll(dir)) }
	store, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{Migrate: true})
	for i := 0; i < len(real) && err == nil; i++ {
		_, err = store.Adopt(context.Background(), real[i])
	}
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return store, func() error { return errors.Join(store.Close(), remove()) }, nil
}

// guard returns a guard on the path, and its cache, with every real pair in it.
func (p *path) guard(v senderauth.Validator, real []senderauth.Credentials) (*senderauth.Guard, error) {
	if p.cache {
		// Another program may hold up a lookup.
		cfg := senderauth.CacheConfig{TTL: time.Hour, RejectedTTL: -1, LookupTimeout: time.Hour}
		if p.remembered {
			cfg.RejectedTTL = time.Hour
		}
		cache, err := senderauth.NewCache(v, cfg)
		if err != nil {
			return nil, err
		}
		for _, c := range real {
			if _, err := cache.Validate(context.Background(), c); err != nil {
				return nil, fmt.Errorf("a real pair is refused: %w", err)
			}
		}
		v = cache
	}
	return senderauth.New(v, senderauth.Config{
		Limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}),
		Limits:  map[string]senderauth.Limit{"default": senderauth.Unlimited()},
	})
}

// measure times n guesses of each class in random order.
func (p *path) measure(q question, n int) (s times, err error) {
	real := pairs(senders)
	v, closeIt, err := p.validator(real)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	guard, err := p.guard(v, real)
	if err != nil {
		return s, err
	}
	handler := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	var e exchange = newCall(handler)
	if p.loopback {
		l, err := newLoopback(handler)
		if err != nil {
			return s, err
		}
		defer l.close()
		e = l
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return p.sample(newClient(real), q, n, e)
}

// round is how many guesses of each class a round has. If they are remembered, each round
// has others: a few guesses would show where in memory they happen to be.
const round = 10_000

func (p *path) sample(c *client, q question, n int, e exchange) (s times, err error) {
	for class := range s {
		s[class] = make([]float64, 0, n)
	}
	ask := func(class int, guess senderauth.Credentials) error {
		took, status, err := e.send(guess)
		if err == nil && status != http.StatusUnauthorized {
			err = fmt.Errorf("a guess is answered %d", status)
		}
		if class >= 0 {
			s[class] = append(s[class], float64(took))
		}
		return err
	}
	for left := n; left > 0; left -= round {
		guesses := make([][2]senderauth.Credentials, min(left, round))
		for i := range guesses {
			guesses[i] = q.ask(c)
		}
		order := c.random.Perm(2 * len(guesses))
		if p.remembered {
			for _, i := range order {
				if err := ask(-1, guesses[i/2][i%2]); err != nil {
					return s, err
				}
			}
			c.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		for _, i := range order {
			if err := ask(i%2, guesses[i/2][i%2]); err != nil {
				return s, err
			}
		}
	}
	return s, nil
}
