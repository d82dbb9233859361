package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// byHand is the fastest code that we found for the promises of a guard without rate
// fields: it stores no key in clear, compares digests in constant time, expires its
// entries, and keeps an exact bucket for each sender under any load.
var byHand = &contender{
	id: "hand", name: "by hand, as tight as it gets", kind: hand, limit: "token bucket",
	lacks: "rate fields, problems, a bound on memory, revocation, shared lookups, limits per sender, several limits, tests",
	build: func(s site) (handlers, error) {
		h := &handGuard{
			validate: s.store.check, next: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if e, ok := r.Context().Value(handKey{}).(*handEntry); ok {
					s.visit(e.sender)
				}
			}),
			start: time.Now(), seed: maphash.MakeSeed(),
			rate: s.quota.perSecond(), burst: float64(s.quota.requests),
		}
		rand.Read(h.secret[:])
		for i := range h.shards {
			h.shards[i].entries = make(map[uint64]*handEntry)
			h.shards[i].accounts = make(map[[16]byte]*handAccount)
		}
		return handlers{full: h}, nil
	},
}

type handGuard struct {
	validate    func(sender, key string) (string, bool)
	next        http.Handler
	start       time.Time
	seed        maphash.Seed
	secret      [16]byte
	rate, burst float64
	shards      [256]handShard
}

// A sender's entries and its bucket are in one shard, under one lock.
type handShard struct {
	mu       sync.Mutex
	entries  map[uint64]*handEntry // by the first 8 bytes of the digest
	accounts map[[16]byte]*handAccount
	_        [40]byte // pads to a cache line of 64 bytes
}

type handEntry struct {
	tag     [16]byte // the next 16 bytes of the digest
	until   time.Duration
	account *handAccount
	sender  string
}

type handAccount struct {
	tokens float64
	last   time.Duration
}

// handKey is the context key of the handEntry. A handRequest is the context that holds
// it, and the only allocation of a request.
type handKey struct{}

type handRequest struct {
	context.Context
	entry   *handEntry
	request http.Request
}

func (c *handRequest) Value(key any) any {
	if key == (handKey{}) {
		return c.entry
	}
	return c.Context.Value(key)
}

func (h *handGuard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	senders, keys := r.Header["X-Sender-Id"], r.Header["X-Api-Key"]
	var pair [48]byte // one block of SHA-256
	copy(pair[:], h.secret[:])
	if len(senders) != 1 || len(keys) != 1 || !parseUUID(pair[16:32], senders[0]) || !parseUUID(pair[32:], keys[0]) {
		http.Error(w, "invalid credentials", http.StatusUnauthorized)
		return
	}
	sum := sha256.Sum256(pair[:])
	index, tag := binary.LittleEndian.Uint64(sum[:]), sum[8:24]
	s := &h.shards[maphash.Bytes(h.seed, pair[16:32])%uint64(len(h.shards))]

	s.mu.Lock()
	now := time.Since(h.start)
	e := s.entries[index]
	if e == nil || now >= e.until || subtle.ConstantTimeCompare(e.tag[:], tag) != 1 {
		s.mu.Unlock()
		sender, ok := h.validate(senders[0], keys[0])
		if !ok {
			http.Error(w, "invalid credentials", http.StatusUnauthorized)
			return
		}
		e = &handEntry{tag: [16]byte(tag), until: now + remembered, sender: sender}
		s.mu.Lock()
		now = time.Since(h.start)
		s.remember(index, e, [16]byte(pair[16:32]), h.burst, now)
	}
	wait := e.account.take(h.rate, h.burst, now)
	s.mu.Unlock()
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
		http.Error(w, "too many requests", http.StatusTooManyRequests)
		return
	}
	c := &handRequest{Context: r.Context(), entry: e}
	c.request = *r.WithContext(c)
	h.next.ServeHTTP(w, &c.request)
}

// remember adds e and deletes up to four expired entries.
func (s *handShard) remember(index uint64, e *handEntry, sender [16]byte, burst float64, now time.Duration) {
	looked := 0
	for i, old := range s.entries {
		if looked++; looked > 4 {
			break
		}
		if now >= old.until {
			delete(s.entries, i)
		}
	}
	if e.account = s.accounts[sender]; e.account == nil {
		e.account = &handAccount{tokens: burst, last: now}
		s.accounts[sender] = e.account
	}
	s.entries[index] = e
}

// take takes a token, or returns how long to wait for one.
func (a *handAccount) take(rate, burst float64, now time.Duration) time.Duration {
	a.tokens = min(burst, a.tokens+(now-a.last).Seconds()*rate)
	a.last = now
	if a.tokens < 1 {
		return time.Duration((1 - a.tokens) / rate * float64(time.Second))
	}
	a.tokens--
	return 0
}

// parseUUID reads the 36 characters of a UUID.
func parseUUID(dst []byte, s string) bool {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return false
	}
	bad := byte(0)
	for i, at := range [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34} {
		high, low := hexDigit[s[at]], hexDigit[s[at+1]]
		bad |= high | low
		dst[i] = high<<4 | low&15
	}
	return bad < 16
}

// hexDigit maps a hexadecimal digit to its value, and any other byte to 255.
var hexDigit = func() (t [256]byte) {
	for i := range t {
		t[i] = 255
	}
	for i := range 16 {
		t["0123456789abcdef"[i]], t["0123456789ABCDEF"[i]] = byte(i), byte(i)
	}
	return t
}()
