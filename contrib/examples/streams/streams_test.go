package streams_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"
)

// A server serves the api, with a key that can be revoked and a store that can fail.
type server struct {
	*httptest.Server
	cache         *senderauth.Cache
	revoked, down atomic.Bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	known, err := senderauth.Static(senderauth.Credentials{SenderID: sender, APIKey: key})
	require.NoError(t, err)
	s := &server{}
	s.cache, err = senderauth.NewCache(senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		switch {
		case s.down.Load():
			return senderauth.Sender{}, errors.New("the store is down")
		case s.revoked.Load():
			return senderauth.Sender{}, senderauth.ErrInvalidKey
		}
		return known.Validate(ctx, c)
	}), senderauth.CacheConfig{})
	require.NoError(t, err)
	guard, err := senderauth.New(s.cache, senderauth.Config{Limits: map[string]senderauth.Limit{
		"default":  {Requests: 2, Per: time.Hour},
		"messages": {Requests: 3, Per: time.Hour},
	}})
	require.NoError(t, err)
	s.Server = httptest.NewServer((&api{guard, s.cache}).handler())
	t.Cleanup(s.Close)
	return s
}

// change changes what the store says, and drops what the cache remembers.
func (s *server) change(what *atomic.Bool, to bool) {
	what.Store(to)
	s.cache.Forget(sender)
}

func header() http.Header {
	return http.Header{"X-Sender-Id": {sender}, "X-Api-Key": {key}}
}

func (s *server) dial(t *testing.T, h http.Header) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return websocket.Dial(ctx, s.URL+"/v1/socket", &websocket.DialOptions{HTTPHeader: h})
}

func TestRefusedClientReadsTheProblemBeforeTheUpgrade(t *testing.T) {
	s := newServer(t)
	_, res, err := s.dial(t, nil)
	require.ErrorContains(t, err, "got 401")
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found","type":"about:blank"}`, string(body))
}

func TestConnectionsAndMessagesAreCharged(t *testing.T) {
	s := newServer(t)
	conn, res, err := s.dial(t, header())
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	require.Equal(t, `"default";r=1;t=1800`, res.Header.Get("RateLimit"))
	for range 3 {
		require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte("hello")))
		_, message, err := conn.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, "hello", string(message))
	}
	require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte("one too many")))
	_, _, err = conn.Read(t.Context())
	var closed websocket.CloseError
	require.ErrorAs(t, err, &closed)
	require.Equal(t, websocket.StatusTryAgainLater, closed.Code)
	require.Regexp(t, `^Rate limit exceeded\. Please retry after \d+ seconds\.$`, closed.Reason)
}

func TestSocketEndsWithItsKey(t *testing.T) {
	s := newServer(t)
	conn, _, err := s.dial(t, header())
	require.NoError(t, err)
	s.change(&s.revoked, true)
	_, _, err = conn.Read(t.Context())
	require.Equal(t, websocket.CloseError{Code: websocket.StatusPolicyViolation, Reason: "the key has ended"}, closeError(t, err))
}

func closeError(t *testing.T, err error) (e websocket.CloseError) {
	t.Helper()
	require.ErrorAs(t, err, &e)
	return e
}

func TestEventsAreFlushedAndEndWithTheKey(t *testing.T) {
	s := newServer(t)
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.URL+"/v1/events", nil)
	require.NoError(t, err)
	r.Header = header()
	res, err := s.Client().Do(r)
	require.NoError(t, err)
	defer res.Body.Close()
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "private", res.Header.Get("Cache-Control"))
	events := bufio.NewScanner(res.Body)
	require.True(t, events.Scan())
	require.Equal(t, "data: 1", events.Text(), "before the handler returns")

	s.change(&s.down, true)
	for events.Scan() && events.Text() != "data: 3" {
	}
	require.Equal(t, "data: 3", events.Text(), "an outage ends no stream")
	s.revoked.Store(true)
	s.change(&s.down, false)
	for events.Scan() {
	}
	require.NoError(t, events.Err(), "the handler has returned")
}
