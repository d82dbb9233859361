package main

import (
	"crypto/sha256"
	"math/rand/v2"

	"github.com/google/uuid"
)

// A population is the senders that requests come from, each with one key. The
// same seed makes the same population in every process.
type population struct{ ids, keys []string }

func populate(senders int) *population {
	p := &population{ids: make([]string, senders), keys: make([]string, senders)}
	random := rand.NewChaCha8([32]byte{'s', 'e', 'n', 'd', 'e', 'r', 's'})
	next := func() string { return uuid.Must(uuid.NewRandomFromReader(random)).String() }
	for i := range p.ids {
		p.ids[i], p.keys[i] = next(), next()
	}
	return p
}

// A keyStore is where the contenders look a key up: a map by its SHA-256, which
// is the least that a store of keys in memory should be. It is never changed,
// so that nobody pays for a lock.
type keyStore struct{ owners map[[sha256.Size]byte]string }

func newKeyStore(p *population) *keyStore {
	s := &keyStore{owners: make(map[[sha256.Size]byte]string, len(p.ids))}
	for i, key := range p.keys {
		s.owners[sha256.Sum256([]byte(key))] = p.ids[i]
	}
	return s
}

// owner returns the sender that key belongs to.
func (s *keyStore) owner(key string) (sender string, ok bool) {
	sender, ok = s.owners[sha256.Sum256([]byte(key))]
	return sender, ok
}

// check reports whether key belongs to the sender, and returns the store's copy
// of its name.
func (s *keyStore) check(sender, key string) (string, bool) {
	owner, ok := s.owner(key)
	return owner, ok && owner == sender
}
