package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// change changes a random key and waits until every instance refuses it. Each sender
// gets a new key for the one that it loses. While PostgreSQL is down, it waits.
func (s *soaker) change(ctx context.Context) error {
	k := s.keys.take()
	if k == nil {
		return nil
	}
	sender := k.credentials.SenderID
	switch n := rand.N(10); {
	case n < 6:
		if err := s.issue(ctx, sender, 0); err != nil {
			return err
		}
		return s.revoke(ctx, k)
	case n < 8:
		return s.rotate(ctx, k)
	case n < 9:
		s.keys.add(k)
		return s.issue(ctx, sender, 5*time.Second+rand.N(15*time.Second))
	default:
		return s.disable(ctx, k)
	}
}

// issue makes a key. It expires after life, if that is not zero.
func (s *soaker) issue(ctx context.Context, sender string, life time.Duration) error {
	return s.persist(ctx, func() error {
		n := sqlkeys.NewKey{SenderID: sender}
		if life > 0 {
			n.ExpiresAt = time.Now().Add(life)
		}
		begun := time.Now()
		issued, err := s.store.Issue(ctx, n)
		if err != nil {
			return err // a key that was issued all the same is not used
		}
		k := newKey(issued.Key.ID, issued.Credentials, begun, issued.Key.ExpiresAt)
		if life == 0 {
			s.keys.add(k)
			return nil
		}
		s.counts.expired.Add(1)
		s.tasks.Go(func() { s.probe(ctx, k, issued.Key.ExpiresAt) })
		return nil
	})
}

func (s *soaker) revoke(ctx context.Context, k *key) error {
	done := k.begin(false)
	err := s.persist(ctx, func() error {
		err := s.store.Revoke(ctx, k.id)
		if errors.Is(err, sqlkeys.ErrRevoked) {
			return nil // by an attempt whose answer was lost
		}
		return err
	})
	if err != nil {
		return err
	}
	done()
	s.counts.revoked.Add(1)
	s.follow(ctx, k)
	s.keys.bury(k)
	return nil
}

// rotate replaces a key, which stays good for a grace period.
func (s *soaker) rotate(ctx context.Context, k *key) error {
	const grace = 3 * time.Second
	k.endsWithin(time.Now().Add(grace), never)
	begun := time.Now()
	issued, err := s.store.Rotate(ctx, k.id, sqlkeys.Rotation{Grace: grace})
	if err != nil && !s.postgresFails() {
		return err
	}
	if err != nil { // whether it was rotated is not known
		if err := s.issue(ctx, k.credentials.SenderID, 0); err != nil {
			return err
		}
		return s.revoke(ctx, k)
	}
	// The database counted the grace period from a time before now.
	end := time.Now().Add(grace)
	k.endsWithin(begun.Add(grace).Truncate(time.Millisecond), end)
	s.keys.add(newKey(issued.Key.ID, issued.Credentials, begun, time.Time{}))
	s.counts.rotated.Add(1)
	s.probe(ctx, k, end)
	return nil
}

// disable disables a key for some seconds.
func (s *soaker) disable(ctx context.Context, k *key) error {
	done := k.begin(false)
	if err := s.persist(ctx, func() error { return s.store.Disable(ctx, k.id) }); err != nil {
		return err
	}
	done()
	s.counts.disabled.Add(1)
	s.follow(ctx, k)
	done = k.begin(true)
	if err := s.persist(ctx, func() error { return s.store.Enable(ctx, k.id) }); err != nil {
		return err
	}
	done()
	s.keys.add(k)
	return nil
}

// persist repeats a change until it succeeds.
func (s *soaker) persist(ctx context.Context, f func() error) error {
	for {
		err := f()
		if err == nil {
			return nil
		}
		if !s.postgresFails() {
			return err
		}
		s.counts.retried.Add(1)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// postgresFails reports whether PostgreSQL is down, or was within the bound.
func (s *soaker) postgresFails() bool {
	return len(s.promises.away(time.Now().Add(-s.promises.bound), time.Now())) > 0
}

// follow sends a key that was made inactive to each instance until that refuses it, and
// measures how long the slowest took. Then it sends the key for some time more.
func (s *soaker) follow(ctx context.Context, k *key) {
	done := time.Now()
	var last time.Duration
	for i := range instances {
		for {
			a := s.ask(ctx, request{kind: own, key: k, credentials: k.credentials, instance: i})
			last = max(last, a.got.Sub(done))
			if a.status == 401 || ctx.Err() != nil {
				break
			}
			sleep(ctx, 2*time.Millisecond)
		}
	}
	if ctx.Err() == nil && len(s.promises.away(done.Add(-s.promises.bound), time.Now())) == 0 {
		s.counts.told(last)
	}
	s.probe(ctx, k, time.Now().Add(2*time.Second))
}

// probe sends a key to all instances until some time after end.
func (s *soaker) probe(ctx context.Context, k *key, end time.Time) {
	for ctx.Err() == nil && time.Since(end) < time.Second {
		for i := range instances {
			s.ask(ctx, request{kind: own, key: k, credentials: k.credentials, instance: i})
		}
		sleep(ctx, 500*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
