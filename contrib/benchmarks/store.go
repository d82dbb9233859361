package main

import (
	"crypto/sha256"
	"math/rand/v2"

	"github.com/google/uuid"
)

// A population is a set of senders with one key each. Every process makes the same one,
// from a fixed seed.
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

// A keyStore is the key store of all contenders: a map from the SHA-256 of a key to its
// sender, which is the least that a key store in memory should do. It never changes, so
// it needs no lock.
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

// check reports whether key belongs to sender, and returns the store's copy of the
// sender's ID.
func (s *keyStore) check(sender, key string) (string, bool) {
	owner, ok := s.owner(key)
	return owner, ok && owner == sender
}
