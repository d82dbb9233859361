package main

import (
	"math/rand/v2"
	"strings"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
)

// A question has two classes of requests. All are refused, and alike.
type question struct {
	name string
	ask  func(c *client) [2]senderauth.Credentials
}

var questions = []question{
	{"first 32 characters of a real key, and a random key", func(c *client) [2]senderauth.Credentials {
		owner := c.real[c.random.IntN(len(c.real))]
		near := []byte(owner.APIKey)
		for string(near) == owner.APIKey {
			for i := 32; i < len(near); i++ {
				near[i] = "0123456789abcdef"[c.random.IntN(16)]
			}
		}
		return [2]senderauth.Credentials{{SenderID: owner.SenderID, APIKey: string(near)}, {SenderID: owner.SenderID, APIKey: c.uuid()}}
	}},
	{"random key of a sender that exists, and of one that does not", func(c *client) [2]senderauth.Credentials {
		// Both classes repeat their senders alike and read them from new strings: what was
		// used lately is in the caches of the processor, whoever used it.
		n := c.random.IntN(len(c.real))
		return [2]senderauth.Credentials{{SenderID: strings.Clone(c.real[n].SenderID), APIKey: c.uuid()}, {SenderID: strings.Clone(c.strangers[n]), APIKey: c.uuid()}}
	}},
}

// A client makes guesses. It knows more than an attacker does: the keys to come near to.
type client struct {
	real      []senderauth.Credentials
	strangers []string // senders that do not exist, as many as real ones
	random    *rand.Rand
}

// senders is how many senders exist. Each has one key.
const senders = 1000

func newClient(real []senderauth.Credentials) *client {
	c := &client{real: real, random: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))}
	for range real {
		c.strangers = append(c.strangers, c.uuid())
	}
	return c
}

// uuid returns a random UUID.
func (c *client) uuid() string {
	var u uuid.UUID
	for i := range u {
		u[i] = byte(c.random.Uint32())
	}
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return u.String()
}

// pairs returns n random pairs of credentials.
func pairs(n int) []senderauth.Credentials {
	all := make([]senderauth.Credentials, n)
	for i := range all {
		all[i] = senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}
	}
	return all
}
