package main

import (
	"math/rand/v2"
	"sync"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
)

// A keyring holds the keys that the load chooses from. Its methods are safe for
// concurrent use.
type keyring struct {
	senders []string

	mu     sync.Mutex
	living map[string][]*key // by sender, at least one each
	dead   []*key            // the latest ones
}

const (
	hotSenders = 3 // of senders, which send half of the requests
	senders    = 200
	deadKeys   = 500
)

func (r *keyring) add(k *key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sender := k.credentials.SenderID
	r.living[sender] = append(r.living[sender], k)
}

// take removes a random key of a random sender that has several, so that nobody else
// changes it. It returns nil if there is none.
func (r *keyring) take() *key {
	r.mu.Lock()
	defer r.mu.Unlock()
	sender := r.senders[rand.N(len(r.senders))]
	keys := r.living[sender]
	if len(keys) < 2 {
		return nil
	}
	i := rand.N(len(keys))
	k := keys[i]
	r.living[sender] = append(keys[:i:i], keys[i+1:]...)
	return k
}

// bury makes the load send a key as a dead one.
func (r *keyring) bury(k *key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.dead) < deadKeys {
		r.dead = append(r.dead, k)
	} else {
		r.dead[rand.N(deadKeys)] = k
	}
}

// next chooses a request: 1 % have a bad key, 2 % a dead one.
func (r *keyring) next() request {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := request{kind: own, instance: rand.N(instances), path: [10]int{0, 0, 0, 0, 0, 0, 1, 1, 1, 2}[rand.N(10)]}
	sender := r.senders[rand.N(len(r.senders))]
	if rand.N(2) == 0 {
		sender = r.senders[rand.N(hotSenders)]
	}
	q.key = r.living[sender][rand.N(len(r.living[sender]))]
	q.credentials = q.key.credentials
	switch n := rand.N(300); {
	case n == 0:
		q.kind, q.key, q.credentials.APIKey = unknown, nil, uuid.NewString()
	case n == 1:
		q.kind, q.key, q.credentials.APIKey = malformed, nil, q.credentials.APIKey+"0"
	case n == 2:
		other := r.senders[rand.N(len(r.senders))]
		if other != sender {
			q.kind, q.credentials = foreign, senderauth.Credentials{SenderID: other, APIKey: q.credentials.APIKey}
		}
	case n < 9 && len(r.dead) > 0:
		q.key = r.dead[rand.N(len(r.dead))]
		q.credentials = q.key.credentials
	}
	return q
}
