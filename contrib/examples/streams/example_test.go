// Package streams shows a guard in front of WebSocket and server-sent events.
//
// A guard decides once, when the request arrives, and a stream lasts as long as its
// handler. So the handler charges the messages, and ends the stream when the key ends. The
// key must still be there for that: with Config.StripKey, take it from the request in a
// layer outside the guard.
//
// A script in a browser cannot set x-api-key on a WebSocket or an EventSource. Let a guarded
// request issue a ticket that is good once and for seconds, and put the ticket into the URL.
package streams_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/senderauth/senderauth"
)

// An api serves streams. keys is the guard's validator: a Cache, so that asking it again
// costs nothing.
type api struct {
	guard *senderauth.Guard
	keys  senderauth.Validator
}

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/socket", a.socket)
	mux.HandleFunc("GET /v1/events", a.events)
	return a.guard.Wrap(mux)
}

// socket sends each message back and charges it.
func (a *api) socket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go a.untilKeyEnds(ctx, r, func() { conn.Close(websocket.StatusPolicyViolation, "the key has ended") })
	for {
		kind, message, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if _, problem := a.guard.Charge(ctx, "messages", 1); problem != nil {
			conn.Close(websocket.StatusTryAgainLater, problem.Detail)
			return
		}
		if err := conn.Write(ctx, kind, message); err != nil {
			return
		}
	}
}

// events counts the seconds.
func (a *api) events(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go a.untilKeyEnds(ctx, r, cancel)
	w.Header().Set("Content-Type", "text/event-stream")
	stream := http.NewResponseController(w)
	for n := 1; ; n++ {
		fmt.Fprintf(w, "data: %d\n\n", n)
		if stream.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// untilKeyEnds calls end when the key of the stream is rejected. An outage of the key store
// ends no stream.
func (a *api) untilKeyEnds(ctx context.Context, r *http.Request, end func()) {
	pair := senderauth.Credentials{SenderID: r.Header.Get("X-Sender-Id"), APIKey: r.Header.Get("X-Api-Key")}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		_, err := a.keys.Validate(ctx, pair)
		for _, rejection := range []error{senderauth.ErrInvalidKey, senderauth.ErrKeyMismatch, senderauth.ErrInvalidSender} {
			if errors.Is(err, rejection) {
				end()
				return
			}
		}
	}
}
