package senderauth_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestSenderFrom(t *testing.T) {
	s, ok := senderauth.SenderFrom(context.Background())
	require.False(t, ok)
	require.Zero(t, s)

	type key struct{}
	outer := context.WithValue(context.Background(), key{}, "outer")
	want := senderauth.Sender{ID: senderID(1), KeyID: "k", Limits: limits(three), Expires: epoch, Detail: 7}
	ctx := senderauth.WithSender(outer, want)
	s, ok = senderauth.SenderFrom(context.WithValue(ctx, key{}, "inner"))
	require.True(t, ok)
	require.Equal(t, want, s)
	require.Equal(t, "outer", ctx.Value(key{}))
	require.Equal(t, fmt.Sprint(outer)+".WithSender", fmt.Sprint(ctx), "as the contexts of the standard library")

	s, _ = senderauth.SenderFrom(senderauth.WithSender(ctx, senderauth.Sender{ID: "inner"}))
	require.Equal(t, "inner", s.ID, "the innermost sender wins")
}

func TestContextOfAnAdmittedRequest(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "outer"))
	r := of(1).WithContext(ctx)
	h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "outer", r.Context().Value(key{}))
		child, stop := context.WithCancel(r.Context())
		defer stop()
		require.NoError(t, child.Err())
		cancel()
		<-child.Done()
		require.ErrorIs(t, r.Context().Err(), context.Canceled)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			noPart(t, fmt.Sprintf(verb, child)+fmt.Sprintf(verb, r.Context()), apiKey(1))
		}
	}))
	require.Equal(t, 200, serve(h, r).Status)
	_, ok := senderauth.SenderFrom(r.Context())
	require.False(t, ok, "the incoming request is unchanged")
}
