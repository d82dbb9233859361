package main

import (
	"context"
	"net/http"
)

// bare is the handler alone.
var bare = &contender{
	id: "bare", name: "the handler alone", kind: floor,
	lacks: "everything",
	build: func(s site) (handlers, error) {
		return handlers{full: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			s.visit(r.Header.Get("X-Sender-Id"))
		})}, nil
	},
}

// contextValue passes a sender to the next handler in the request's context and does
// nothing else, which any middleware of net/http has to do.
var contextValue = &contender{
	id: "context", name: "one context value", kind: floor,
	lacks: "everything but handing the sender on",
	build: func(s site) (handlers, error) {
		next := readContext(s)
		return handlers{full: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, withSender(r, r.Header.Get("X-Sender-Id")))
		})}, nil
	},
}

type senderKey struct{}

func withSender(r *http.Request, sender string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), senderKey{}, sender))
}

func senderOf(r *http.Request) string {
	sender, _ := r.Context().Value(senderKey{}).(string)
	return sender
}

// readContext is the handler of contenders that use withSender.
func readContext(s site) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { s.visit(senderOf(r)) })
}
