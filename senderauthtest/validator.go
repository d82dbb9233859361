// Package senderauthtest holds the suites that every implementation of
// senderauth's plug points must pass: [TestValidator] and [TestLimiter]. It
// imports only senderauth and the standard library.
package senderauthtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
)

// A State is the state of a sender and its key in a key store.
type State string

// The states that [TestValidator] tests. [ValidatorConfig] must have keys in the
// states Active and Other, and keys in each other state or its name in Lacks.
const (
	Active         State = "active key"                  // its sender is enabled
	Second         State = "second active key"           // of the same sender as Active
	Other          State = "active key of another"       // of another sender than Active
	Expiring       State = "active key that will end"    // it expires, or its grace period ends, in the future
	Disabled       State = "disabled key"                // its sender is enabled
	Rotated        State = "rotated key, grace over"     // replaced, and past its grace period
	Expired        State = "expired key"                 // past its expiry
	NotYet         State = "key that is not yet valid"   // valid from a time in the future
	Deleted        State = "deleted key"                 // revoked for good
	DisabledSender State = "active key, sender is off"   // the sender itself is disabled: ErrInvalidSender
	DisabledBoth   State = "disabled key, sender is off" // the key comes first: ErrInvalidKey
)

var (
	required = []State{Active, Other}
	optional = []State{Second, Expiring, Disabled, Rotated, Expired, NotYet, Deleted, DisabledSender, DisabledBoth}
	inactive = []State{Disabled, Rotated, Expired, NotYet, Deleted, DisabledBoth}
)

// ValidatorConfig tells [TestValidator] what to test.
type ValidatorConfig struct {
	_ [0]func()

	// Validator is the one under test.
	Validator senderauth.Validator
	// Keys holds credentials for each state: a key, and the lower-case ID of the
	// sender that owns or owned it. All keys are different, and so are all senders,
	// except that Active and Second have the same one.
	Keys map[State]senderauth.Credentials
	// Lacks names the states that the Validator does not have. A state that is in
	// neither Keys nor Lacks fails the test, so that none is forgotten.
	Lacks []State
}

// TestValidator tests the contract of [senderauth.Validator]:
//
//   - each state is answered with its error;
//   - the key is looked up before its owner is compared with the named sender;
//   - the key alone decides if no sender is named;
//   - Sender.ID comes from the record;
//   - no error contains a part of the key;
//   - Validate is safe for concurrent use.
//
// It asks every question twice, so that a Validator with a cache answers from the
// cache, too.
func TestValidator(t *testing.T, cfg ValidatorConfig) {
	t.Helper()
	v := validatorTest{cfg}
	v.checkConfig(t)
	for _, c := range v.questions() {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				if err := v.ask(context.Background(), c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	t.Run("an ended context is not a refusal", v.testEndedContext)
	t.Run("concurrent use", v.testConcurrentUse)
}

type validatorTest struct{ ValidatorConfig }

func (v validatorTest) checkConfig(t *testing.T) {
	t.Helper()
	if v.Validator == nil {
		t.Fatal("senderauthtest: ValidatorConfig.Validator is nil")
	}
	for _, s := range required {
		if _, ok := v.Keys[s]; !ok {
			t.Errorf("senderauthtest: ValidatorConfig.Keys has no %q", s)
		}
	}
	for _, s := range optional {
		if _, has := v.Keys[s]; has == slices.Contains(v.Lacks, s) {
			t.Errorf("senderauthtest: %q must be in either ValidatorConfig.Keys or ValidatorConfig.Lacks", s)
		}
	}
	for s, c := range v.Keys {
		if !slices.Contains(required, s) && !slices.Contains(optional, s) {
			t.Errorf("senderauthtest: ValidatorConfig.Keys: %q is not a State", s)
		}
		if len(c.SenderID) != 36 || c.SenderID != strings.ToLower(c.SenderID) || c.APIKey == "" {
			t.Errorf("senderauthtest: ValidatorConfig.Keys[%q] needs a SenderID of 36 characters in lower case, and a key", s)
		}
		for s2, c2 := range v.Keys {
			if s == s2 {
				continue
			}
			if c.APIKey == c2.APIKey {
				t.Errorf("senderauthtest: ValidatorConfig.Keys: %q and %q are the same key", s, s2)
			}
			same := s == Second && s2 == Active || s == Active && s2 == Second
			if same != (c.SenderID == c2.SenderID) {
				t.Errorf("senderauthtest: ValidatorConfig.Keys: %q and %q must have the same sender, and no other two states may: see %q and %q", Active, Second, s, s2)
			}
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// A question is one call of the validator with the answer it must give.
type question struct {
	name  string
	pair  senderauth.Credentials
	owner string // empty if the validator must refuse
	want  error
	ends  bool // whether Sender.Expires must be set
}

func (v validatorTest) questions() []question {
	var qs []question
	add := func(name string, pair senderauth.Credentials, owner string, want error) {
		qs = append(qs, question{name: name, pair: pair, owner: owner, want: want})
	}
	as := func(s State, sender string) senderauth.Credentials {
		return senderauth.Credentials{SenderID: sender, APIKey: v.Keys[s].APIKey}
	}
	stranger := newUUID()
	has := func(s State) bool { _, ok := v.Keys[s]; return ok }

	for _, s := range []State{Active, Second, Other, Expiring} {
		if !has(s) {
			continue
		}
		owner := v.Keys[s].SenderID
		elsewhere := v.Keys[Other].SenderID
		if s == Other {
			elsewhere = v.Keys[Active].SenderID
		}
		add(string(s), v.Keys[s], owner, nil)
		qs[len(qs)-1].ends = s == Expiring
		add(string(s)+", no sender named", as(s, ""), owner, nil)
		add(string(s)+", another sender named", as(s, elsewhere), "", senderauth.ErrKeyMismatch)
		add(string(s)+", an unknown sender named", as(s, stranger), "", senderauth.ErrKeyMismatch)
	}
	for _, s := range inactive {
		if !has(s) {
			continue
		}
		add(string(s), v.Keys[s], "", senderauth.ErrInvalidKey)
		add(string(s)+", no sender named", as(s, ""), "", senderauth.ErrInvalidKey)
		add(string(s)+", another sender named", as(s, v.Keys[Active].SenderID), "", senderauth.ErrInvalidKey)
		add(string(s)+", an unknown sender named", as(s, stranger), "", senderauth.ErrInvalidKey)
	}
	if has(DisabledSender) {
		add(string(DisabledSender), v.Keys[DisabledSender], "", senderauth.ErrInvalidSender)
		add(string(DisabledSender)+", no sender named", as(DisabledSender, ""), "", senderauth.ErrInvalidSender)
		add(string(DisabledSender)+", another sender named", as(DisabledSender, v.Keys[Active].SenderID), "", senderauth.ErrKeyMismatch)
		add("another's key, sender is off", as(Active, v.Keys[DisabledSender].SenderID), "", senderauth.ErrKeyMismatch)
	}
	for name, key := range map[string]string{"unknown key": newUUID(), "key that differs in its last character": v.nearMiss()} {
		for who, sender := range map[string]string{
			"": v.Keys[Active].SenderID, ", no sender named": "", ", an unknown sender named": stranger,
		} {
			add(name+who, senderauth.Credentials{SenderID: sender, APIKey: key}, "", senderauth.ErrInvalidKey)
		}
		if has(DisabledSender) {
			add(name+", sender is off", senderauth.Credentials{SenderID: v.Keys[DisabledSender].SenderID, APIKey: key}, "", senderauth.ErrInvalidKey)
		}
	}
	return qs
}

// nearMiss returns an unknown key that differs from Active's only in its last
// character. If there is none it returns a random UUID.
func (v validatorTest) nearMiss() string {
	key := v.Keys[Active].APIKey
	for _, last := range "0123456789abcdef" {
		miss := key[:len(key)-1] + string(last)
		taken := false
		for _, c := range v.Keys {
			taken = taken || strings.EqualFold(c.APIKey, miss)
		}
		if !taken {
			return miss
		}
	}
	return newUUID()
}

// ask asks a question and returns what is wrong with the answer.
func (v validatorTest) ask(ctx context.Context, q question) error {
	s, err := v.Validator.Validate(ctx, q.pair)
	if part := partOf(q.pair, fmt.Sprintf("%v %+v %#v", err, err, err)); part {
		return fmt.Errorf("%s: the error contains a part of the key", q.name)
	}
	if q.want != nil {
		if !errors.Is(err, q.want) {
			return fmt.Errorf("%s: the error is %q, want %q or one that wraps it", q.name, err, q.want)
		}
		for _, other := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender} {
			if other != q.want && errors.Is(err, other) {
				return fmt.Errorf("%s: the error is both %q and %q", q.name, q.want, other)
			}
		}
		return nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s: the error is %q, want none", q.name, err)
	case s.ID != q.owner:
		return fmt.Errorf("%s: Sender.ID is %q, want %q", q.name, s.ID, q.owner)
	case partOf(q.pair, s.KeyID):
		return fmt.Errorf("%s: Sender.KeyID contains a part of the key", q.name)
	case q.ends && s.Expires.IsZero():
		return fmt.Errorf("%s: Sender.Expires is zero", q.name)
	case !s.Expires.IsZero() && !s.Expires.After(time.Now()):
		return fmt.Errorf("%s: Sender.Expires is %v, which is in the past", q.name, s.Expires)
	}
	if len(s.Limits) == 0 {
		return nil
	}
	limits := maps.Clone(s.Limits)
	if _, ok := limits["default"]; !ok {
		limits["default"] = senderauth.Unlimited() // New demands one
	}
	if _, err := senderauth.New(v.Validator, senderauth.Config{Limits: limits}); err != nil {
		return fmt.Errorf("%s: Sender.Limits: %w", q.name, err)
	}
	return nil
}

// partOf reports whether text contains eight consecutive characters of the key.
// Those that are in the sender's ID as well do not count, because the ID is no
// secret.
func partOf(pair senderauth.Credentials, text string) bool {
	const n = 8
	text, key := strings.ToLower(text), strings.ToLower(pair.APIKey)
	for i := 0; i+n <= len(key); i++ {
		if part := key[i : i+n]; strings.Contains(text, part) && !strings.Contains(strings.ToLower(pair.SenderID), part) {
			return true
		}
	}
	return len(key) < n && strings.Contains(text, key)
}

func (v validatorTest) testEndedContext(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	for _, ctx := range []context.Context{canceled, late} {
		_, err := v.Validator.Validate(ctx, v.Keys[Active])
		for _, refusal := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender} {
			if errors.Is(err, refusal) {
				t.Errorf("the active key is refused because the context has ended (%v): %q", ctx.Err(), err)
			}
		}
		if err := v.ask(context.Background(), question{name: "afterwards", pair: v.Keys[Active], owner: v.Keys[Active].SenderID}); err != nil {
			t.Error(err)
		}
	}
}

func (v validatorTest) testConcurrentUse(t *testing.T) {
	qs := v.questions()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range qs {
				if err := v.ask(context.Background(), qs[(i+g*len(qs)/16)%len(qs)]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// newUUID returns a random UUID in lower case.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
