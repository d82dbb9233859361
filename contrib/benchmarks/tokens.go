package main

import (
	"crypto/ed25519"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	hmacSecret     = []byte("a secret of thirty-two characters")
	ed25519Private = ed25519.NewKeyFromSeed(hmacSecret[:ed25519.SeedSize])

	jwtHMAC = &contender{
		id: "jwt-hs256", name: "golang-jwt, HS256", kind: check,
		lacks:   "a limit, revocation; who can check a token can issue one",
		modules: []string{"github.com/golang-jwt/jwt/v5"},
		build:   verifier(jwt.SigningMethodHS256, hmacSecret),
		token:   signer(jwt.SigningMethodHS256, hmacSecret),
	}
	jwtEd25519 = &contender{
		id: "jwt-eddsa", name: "golang-jwt, EdDSA", kind: check,
		lacks:   "a limit, revocation",
		modules: []string{"github.com/golang-jwt/jwt/v5"},
		build:   verifier(jwt.SigningMethodEdDSA, ed25519Private.Public()),
		token:   signer(jwt.SigningMethodEdDSA, ed25519Private),
	}
)

// verifier builds a check of a bearer token with the sender as its subject.
func verifier(method jwt.SigningMethod, key any) func(site) (handlers, error) {
	return func(s site) (handlers, error) {
		parser := jwt.NewParser(jwt.WithValidMethods([]string{method.Alg()}), jwt.WithExpirationRequired())
		keyFunc := func(*jwt.Token) (any, error) { return key, nil }
		next := readContext(s)
		return handlers{full: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			var claims jwt.RegisteredClaims
			if ok {
				_, err := parser.ParseWithClaims(bearer, &claims, keyFunc)
				ok = err == nil
			}
			if !ok {
				http.Error(w, "invalid token", http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, withSender(r, claims.Subject))
		})}, nil
	}
}

// tokenExpires is the expiry of all tokens, so that all have the same length.
var tokenExpires = jwt.NewNumericDate(time.Now().Add(24 * time.Hour))

func signer(method jwt.SigningMethod, key any) func(sender string) string {
	return func(sender string) string {
		token, err := jwt.NewWithClaims(method, jwt.RegisteredClaims{Subject: sender, ExpiresAt: tokenExpires}).SignedString(key)
		if err != nil {
			panic(err) // only if the key has the wrong type
		}
		return "Bearer " + token
	}
}
