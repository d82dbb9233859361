package senderauth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestServeProblem(t *testing.T) {
	var got []senderauth.Problem
	var outcomes []senderauth.Outcome
	cfg := senderauth.Config{Realm: "r", ServeProblem: func(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, o senderauth.Outcome) {
		got = append(got, *p)
		outcomes = append(outcomes, o)
		p.Instance = "/requests/1"
		p.Detail += " (ours)"
		if p.Extensions != nil {
			p.Extensions["more"] = 1
		}
		p.ServeHTTP(w, r)
	}}
	serveOnce := func(t *testing.T, v senderauth.ValidatorFunc, r *http.Request) response {
		got = nil
		a := newApp(t, v, cfg)
		res := serve(a, r)
		require.Len(t, got, 1)
		return res
	}
	bubble(t, "ours", func(t *testing.T) {
		for range 2 { // what one request changes, the next does not see
			res := serveOnce(t, nil, request())
			require.Equal(t, []senderauth.Problem{{Status: 401, Title: "Unauthorized", Type: "about:blank", Detail: "Header x-api-key not found", Challenge: `ApiKey realm="r"`, Err: got[0].Err}}, got)
			require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found (ours)","type":"about:blank","instance":"/requests/1"}`, res.Body)
			require.Equal(t, `ApiKey realm="r"`, res.Header["Www-Authenticate"])
		}
	})
	bubble(t, "an outage, with its cause", func(t *testing.T) {
		outage := errors.New("outage")
		res := serveOnce(t, refuseWith(outage), of(1))
		require.Equal(t, []senderauth.Problem{{Status: 503, Title: "Service Unavailable", Type: "about:blank", Detail: "The service is temporarily unavailable. Please retry.", RetryAfter: time.Second, Err: outage}}, got)
		require.NotContains(t, res.Body, "outage")
	})
	bubble(t, "the validator's own is not changed", func(t *testing.T) {
		own := &senderauth.Problem{Status: 401, Detail: "no", Extensions: map[string]any{"code": 7}}
		for range 2 {
			res := serveOnce(t, refuseWith(own), of(1))
			require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"no (ours)","type":"about:blank","instance":"/requests/1","code":7,"more":1}`, res.Body)
			require.Equal(t, `ApiKey realm="r"`, res.Header["Www-Authenticate"])
		}
		require.Equal(t, &senderauth.Problem{Status: 401, Detail: "no", Extensions: map[string]any{"code": 7}}, own)
	})
	bubble(t, "a status that is no refusal is completed", func(t *testing.T) {
		for _, status := range []int{0, 200, 302, 999} {
			res := serveOnce(t, refuseWith(&senderauth.Problem{Status: status, Detail: "no", Challenge: "Own"}), of(1))
			require.Equal(t, 500, res.Status)
			require.Equal(t, 500, got[0].Status)
			require.Equal(t, "Internal Server Error", got[0].Title)
			require.Empty(t, got[0].Challenge, "of a 401 only")
		}
	})
	bubble(t, "the outcome says which refusal it is", func(t *testing.T) {
		outcomes = nil
		serveOnce(t, nil, request())
		serveOnce(t, refuseWith(errOutage), of(1))
		serveOnce(t, refuseWith(&senderauth.Problem{Status: 403}), of(1))
		require.Equal(t, []senderauth.Outcome{senderauth.MissingKey, senderauth.Unavailable, senderauth.Refused}, outcomes)
	})
	bubble(t, "over the limit", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, cfg)
		for range 4 {
			serve(a, of(1))
		}
		require.Equal(t, []senderauth.Problem{{Status: 429, Title: "Too Many Requests", Type: "about:blank", Detail: "Rate limit exceeded. Please retry after 1 seconds.", RetryAfter: time.Second}}, got)
		res := serve(a, of(1))
		require.Equal(t, "1", res.Header["Retry-After"])
		require.Equal(t, "0", res.Header["X-Ratelimit-Remaining"])
	})
	bubble(t, "blocked", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, senderauth.Config{ServeProblem: cfg.ServeProblem, Limits: limits(senderauth.Blocked())})
		serve(a, of(1))
		require.Equal(t, []senderauth.Problem{{Status: 429, Title: "Too Many Requests", Type: "about:blank", Detail: "Rate limit exceeded."}}, got)
	})
}

// The body of a refused upload is read before a function of the program's own
// answers, too.
func TestServeProblemOfAnUploadThatNeverComes(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{ServeProblem: func(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, _ senderauth.Outcome) {
		p.ServeHTTP(w, r)
	}})
	upload := request()
	body := strings.NewReader("upload")
	upload.Body, upload.ContentLength = io.NopCloser(body), 6
	w := &deadlines{}
	a.ServeHTTP(w, upload)
	require.Zero(t, body.Len())
	require.Equal(t, 2, w.calls, "a status and a body")
	require.NotNil(t, upload.Body, "the caller's request is not changed")

	bubble(t, "once", func(t *testing.T) {
		upload.Body = &reads{t, func([]byte) (int, error) { time.Sleep(time.Millisecond); return 0, nil }}
		start := time.Now()
		a.ServeHTTP(&deadlines{}, upload)
		require.Less(t, time.Since(start), time.Second, "the problem that answers by itself does not wait again")
	})
}

func TestExpiryNotice(t *testing.T) {
	const notice = 14 * 24 * time.Hour
	expires := epoch.Add(30 * 24 * time.Hour)
	announced := []string{"X-Api-Key-Expires", "2000-01-31T00:00:00Z"}
	ends := func(at time.Time) senderauth.ValidatorFunc {
		return func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Expires = at
			return s, err
		}
	}
	bubble(t, "from the notice on", func(t *testing.T) {
		elsewhere := time.FixedZone("", 3600)
		a := newApp(t, ends(expires.Add(time.Second-1).In(elsewhere)), senderauth.Config{ExpiryNotice: notice})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		time.Sleep(16 * 24 * time.Hour)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		time.Sleep(time.Second)
		require.Equal(t, hello(1).with(threeLeft(2)...).with(announced...), serve(a, of(1)))
	})
	bubble(t, "on refusals of an authenticated request only", func(t *testing.T) {
		time.Sleep(20 * 24 * time.Hour)
		a := newApp(t, ends(expires), senderauth.Config{ExpiryNotice: notice})
		for range 3 {
			serve(a, of(1))
		}
		require.Equal(t, limited("1").with(threeLeft(0)...).with(announced...), serve(a, of(1)))
		require.Equal(t, noKey, serve(a, request()))
		layer := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["x-api-key-expires"] = []string{"the key of a guard outside"}
			a.ServeHTTP(w, r)
		})
		require.Equal(t, noKey, serve(layer, request()))
		time.Sleep(time.Second)
		require.Equal(t, hello(1).with(threeLeft(0)...).with(announced...), serve(layer, of(1)))
	})
	bubble(t, "the earlier end, if guards of different New know different ones", func(t *testing.T) {
		time.Sleep(20 * 24 * time.Hour)
		cfg := senderauth.Config{ExpiryNotice: notice}
		early, late, never := newApp(t, ends(expires), cfg), newApp(t, ends(expires.Add(time.Hour)), cfg), newApp(t, nil, cfg)
		for _, h := range []http.Handler{
			early.guard.Wrap(late.guard.Wrap(late.hello())), late.guard.Wrap(early.guard.Wrap(early.hello())),
			early.guard.Wrap(never.guard.Wrap(never.hello())), never.guard.Wrap(early.guard.Wrap(early.hello())),
		} {
			require.Equal(t, announced[1], serve(h, of(1)).Header["X-Api-Key-Expires"])
			time.Sleep(time.Minute)
		}
	})
	bubble(t, "never for a key without an end, nor by default", func(t *testing.T) {
		time.Sleep(20 * 24 * time.Hour)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(newApp(t, nil, senderauth.Config{ExpiryNotice: notice}), of(1)))
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(newApp(t, ends(expires), senderauth.Config{}), of(1)))
	})
}
