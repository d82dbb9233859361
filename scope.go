package senderauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AllScopes in [Sender.Scopes] stands for every scope.
const AllScopes = "*"

// HasScope reports whether the sender's key may do what scope names.
func (s Sender) HasScope(scope string) bool { return s.hasScope(scope) }

func (s *Sender) hasScope(scope string) bool {
	for _, has := range s.Scopes {
		if has == scope || has == AllScopes {
			return true
		}
	}
	return false
}

// Requiring returns a guard that also requires these scopes, all of them, beside those
// that g requires. A sender whose key lacks one gets 403 "API key lacks a required
// scope", and the request takes no tokens. Each scope is a scope-token of RFC 6749
// section 3.3: printable ASCII without space, quote and backslash. Requiring panics on one
// that is not, on [AllScopes], and without scopes, because they are literals in a program.
//
//	mux.Handle("GET /v1/orders", guard.Requiring("orders:read").Wrap(list))
func (g *Guard) Requiring(scopes ...string) *Guard {
	g.mustBeMade()
	if len(scopes) == 0 {
		panic("senderauth: Requiring: no scopes")
	}
	for _, scope := range scopes {
		if scope == AllScopes || !isScope(scope) {
			panic(fmt.Errorf("senderauth: Requiring: %q is not a scope", scope))
		}
	}
	derived := *g
	derived.scopes = slices.Concat(g.scopes, scopes)
	return &derived
}

// isScope reports whether s is a scope-token of RFC 6749 section 3.3.
func isScope(s string) bool { return asciiFrom('!', s) && !strings.ContainsAny(s, `"\\`) }

// lacks returns the first scope of the guard that the sender does not have.
func (g *Guard) lacks(s *Sender) (scope string, lacks bool) {
	for _, scope := range g.scopes {
		if !s.hasScope(scope) {
			return scope, true
		}
	}
	return "", false
}

// errScope is the cause of OutOfScope.
var errScope = errors.New("senderauth: the key lacks a required scope")
