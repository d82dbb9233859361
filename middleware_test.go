package senderauth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

const (
	nilUUID = "00000000-0000-0000-0000-000000000000"
	maxUUID = "ffffffff-ffff-ffff-ffff-ffffffffffff"
)

var (
	noKey      = refused(401, "Header x-api-key not found")
	noSender   = refused(401, "Header x-sender-id not found")
	badSender  = refused(401, "Invalid x-sender-id")
	badKey     = refused(401, "Invalid API credentials!")
	mismatched = refused(401, "API key does not match sender ID")
)

// TestDecisions is the contract for requests that are decided without a
// limit's help: the whole response to GET and to HEAD, the event, and whether
// the validator was asked. No refusal takes from the quota.
func TestDecisions(t *testing.T) {
	id, key := senderID(1), apiKey(1)
	for _, c := range []struct {
		name    string
		lines   []string
		v       senderauth.ValidatorFunc
		cfg     senderauth.Config
		want    response
		outcome senderauth.Outcome
		asked   int
	}{
		// Presence comes before syntax, and the key before the sender.
		{name: "nothing", want: noKey, outcome: "missing_key"},
		{name: "no key", lines: []string{"x-sender-id", id}, want: noKey, outcome: "missing_key"},
		{name: "empty key", lines: []string{"x-sender-id", id, "x-api-key", ""}, want: noKey, outcome: "missing_key"},
		{name: "two empty keys", lines: []string{"x-sender-id", id, "x-api-key", "", "x-api-key", ""}, want: noKey, outcome: "missing_key"},
		{name: "no key, malformed sender", lines: []string{"x-sender-id", "x"}, want: noKey, outcome: "missing_key"},
		{name: "no sender", lines: []string{"x-api-key", key}, want: noSender, outcome: "missing_sender"},
		{name: "empty sender", lines: []string{"x-api-key", key, "x-sender-id", ""}, want: noSender, outcome: "missing_sender"},
		{name: "no sender, malformed key", lines: []string{"x-api-key", "x"}, want: noSender, outcome: "missing_sender"},
		{name: "key under another name", lines: []string{"x-sender-id", id, "x_api_key", key, "Authorization", "Bearer " + key}, want: noKey, outcome: "missing_key"},

		// The sender's syntax comes before the key's.
		{name: "both malformed", lines: []string{"x-sender-id", "x", "x-api-key", "x"}, want: badSender, outcome: "invalid_sender"},
		{name: "two senders", lines: []string{"x-sender-id", id, "x-sender-id", id, "x-api-key", key}, want: badSender, outcome: "invalid_sender"},
		{name: "an empty line beside the sender", lines: []string{"x-sender-id", "", "x-sender-id", id, "x-api-key", key}, want: badSender, outcome: "invalid_sender"},
		{name: "senders in one line", lines: []string{"x-sender-id", id + ", " + id, "x-api-key", key}, want: badSender, outcome: "invalid_sender"},
		{name: "nil sender", lines: []string{"x-sender-id", nilUUID, "x-api-key", key}, want: badSender, outcome: "invalid_sender"},
		{name: "max sender", lines: []string{"x-sender-id", strings.ToUpper(maxUUID), "x-api-key", key}, want: badSender, outcome: "invalid_sender"},
		{name: "two keys", lines: []string{"x-sender-id", id, "x-api-key", key, "x-api-key", key}, want: badKey, outcome: "invalid_key"},
		{name: "an empty line beside the key", lines: []string{"x-sender-id", id, "x-api-key", key, "x-api-key", ""}, want: badKey, outcome: "invalid_key"},
		{name: "keys in one line", lines: []string{"x-sender-id", id, "x-api-key", key + "," + key}, want: badKey, outcome: "invalid_key"},
		{name: "nil key", lines: []string{"x-sender-id", id, "x-api-key", nilUUID}, want: badKey, outcome: "invalid_key"},
		{name: "max key", lines: []string{"x-sender-id", id, "x-api-key", maxUUID}, want: badKey, outcome: "invalid_key"},
		{name: "long key", lines: []string{"x-sender-id", id, "x-api-key", strings.Repeat("a", 900_000)}, want: badKey, outcome: "invalid_key"},
		{name: "key that folds to a UUID", lines: []string{"x-sender-id", id, "x-api-key", strings.Replace(key, "c", "\u212a", 1)}, want: badKey, outcome: "invalid_key"},

		// The validator's refusals, bare and wrapped.
		{name: "unknown key", lines: []string{"x-sender-id", id, "x-api-key", id}, want: badKey, outcome: "invalid_key", asked: 1},
		{name: "another's key", lines: []string{"x-sender-id", senderID(2), "x-api-key", key}, want: mismatched, outcome: "mismatch", asked: 1},
		{name: "wrapped ErrInvalidKey", v: refuseWith(fmt.Errorf("rotated: %w", senderauth.ErrInvalidKey)), want: badKey, outcome: "invalid_key", asked: 1},
		{name: "wrapped ErrKeyMismatch", v: refuseWith(fmt.Errorf("%w", senderauth.ErrKeyMismatch)), want: mismatched, outcome: "mismatch", asked: 1},
		{name: "wrapped ErrInvalidSender", v: refuseWith(errors.Join(senderauth.ErrInvalidSender)), want: badSender, outcome: "invalid_sender", asked: 1},

		// A problem of the validator's own is answered as it is.
		{name: "own 403", v: refuseWith(&senderauth.Problem{Status: 403, Detail: "billing is suspended"}), want: refused(403, "billing is suspended"), outcome: "refused", asked: 1},
		{name: "own 401, wrapped", v: refuseWith(fmt.Errorf("no: %w", &senderauth.Problem{Status: 401, Detail: "log in"})), want: refused(401, "log in"), outcome: "refused", asked: 1},
		{name: "own 401 takes the realm", v: refuseWith(&senderauth.Problem{Status: 401, Detail: "log in"}), cfg: senderauth.Config{Realm: `a "b"\`},
			want: refused(401, "log in").with("Www-Authenticate", `ApiKey realm="a \"b\"\\"`), outcome: "refused", asked: 1},
		{name: "own 401 with a challenge", v: refuseWith(&senderauth.Problem{Status: 401, Detail: "log in", Challenge: "Own"}), cfg: senderauth.Config{Realm: "r"},
			want: refused(401, "log in").with("Www-Authenticate", "Own"), outcome: "refused", asked: 1},
		{name: "own problem beats a sentinel", v: refuseWith(&senderauth.Problem{Status: 403, Detail: "no", Err: senderauth.ErrInvalidKey}), want: refused(403, "no"), outcome: "refused", asked: 1},

		// An outage is never a 401.
		{name: "outage", v: refuseWith(errors.New("dial tcp: refused")), want: unavailable, outcome: "unavailable", asked: 1},
		{name: "deadline", v: refuseWith(context.DeadlineExceeded), want: unavailable, outcome: "unavailable", asked: 1},
		{name: "the validator's own context ended", v: refuseWith(context.Canceled), want: unavailable, outcome: "unavailable", asked: 1},

		// A fault of the server's own fails closed.
		{name: "panic", v: func(context.Context, senderauth.Credentials) (senderauth.Sender, error) { panic("no") }, want: internal, outcome: "failed", asked: 1},
		{name: "sender without ID", v: func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, nil
		}, want: internal, outcome: "failed", asked: 1},
		{name: "another sender", v: func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: senderID(2)}, nil
		}, want: internal, outcome: "failed", asked: 1},
		{name: "sender in capitals", v: func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: strings.ToUpper(id)}, nil
		}, want: internal, outcome: "failed", asked: 1},
		{name: "sender with the zero Limit", v: func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: id, Limits: map[string]senderauth.Limit{"x": {}}}, nil
		}, want: internal, outcome: "failed", asked: 1},

		// The texts name the headers that are configured, the challenge the realm.
		{name: "own headers, no key", lines: []string{"X-Api-Key", key, "X-Sender-Id", id}, cfg: senderauth.Config{KeyHeader: "API-Token", SenderHeader: "Tenant", Realm: "r"},
			want: refused(401, "Header api-token not found").with("Www-Authenticate", `ApiKey realm="r"`), outcome: "missing_key"},
		{name: "own headers, no sender", lines: []string{"api-token", key}, cfg: senderauth.Config{KeyHeader: "API-Token", SenderHeader: "Tenant"}, want: refused(401, "Header tenant not found"), outcome: "missing_sender"},
		{name: "own headers, bad sender", lines: []string{"api-token", key, "tenant", "x"}, cfg: senderauth.Config{KeyHeader: "API-Token", SenderHeader: "Tenant"}, want: refused(401, "Invalid tenant"), outcome: "invalid_sender"},

		// KeyOnly passes over the sender, whatever is there.
		{name: "key only, no key", lines: []string{"x-sender-id", id}, cfg: senderauth.Config{KeyOnly: true}, want: noKey, outcome: "missing_key"},
		{name: "key only, malformed", lines: []string{"x-api-key", "x"}, cfg: senderauth.Config{KeyOnly: true}, want: badKey, outcome: "invalid_key"},
		{name: "key only, unknown", lines: []string{"x-api-key", id}, cfg: senderauth.Config{KeyOnly: true}, want: badKey, outcome: "invalid_key", asked: 1},

		// CheckKey, within 1 to 512 visible ASCII characters.
		{name: "form refused", cfg: senderauth.Config{CheckKey: func(string) bool { return false }}, want: badKey, outcome: "invalid_key"},
		{name: "513 characters", lines: []string{"x-sender-id", id, "x-api-key", strings.Repeat("a", 513)}, cfg: senderauth.Config{CheckKey: anyKey}, want: badKey, outcome: "invalid_key"},
		{name: "a space", lines: []string{"x-sender-id", id, "x-api-key", "a b"}, cfg: senderauth.Config{CheckKey: anyKey}, want: badKey, outcome: "invalid_key"},
		{name: "not ASCII", lines: []string{"x-sender-id", id, "x-api-key", "a\u00a0b"}, cfg: senderauth.Config{CheckKey: anyKey}, want: badKey, outcome: "invalid_key"},
		{name: "DEL", lines: []string{"x-sender-id", id, "x-api-key", "a\x7f"}, cfg: senderauth.Config{CheckKey: anyKey}, want: badKey, outcome: "invalid_key"},
		{name: "form panics", cfg: senderauth.Config{CheckKey: func(key string) bool { panic(key) }}, want: internal, outcome: "failed"},

		// Cleartext, before all else.
		{name: "cleartext", lines: []string{"X-Forwarded-Proto", "https"}, cfg: senderauth.Config{RequireTLS: true}, want: refused(403, "HTTPS is required"), outcome: "insecure"},
	} {
		bubble(t, c.name, func(t *testing.T) {
			if c.lines == nil && (c.v != nil || c.cfg.CheckKey != nil) {
				c.lines = []string{"x-sender-id", id, "x-api-key", key}
			}
			a := newApp(t, c.v, c.cfg)
			require.Equal(t, c.want, serve(a, request(c.lines...)))
			require.Len(t, a.asked, c.asked)
			head := request(c.lines...)
			head.Method = http.MethodHead
			require.Equal(t, c.want.head(), serve(a, head))
			require.Equal(t, []senderauth.Outcome{c.outcome, c.outcome}, a.outcomes())
			require.Empty(t, a.served)
			for _, e := range a.events {
				require.Zero(t, e.Sender)
				require.Empty(t, e.Limit)
				noPart(t, fmt.Sprintf("%v %+v %#v", e.Err, e, e.Err), key)
			}
		})
	}
}

func anyKey(string) bool { return true }

// A nil pointer that is an error is a mistake of the validator's: no client
// ends the process with it.
func TestNilPointerAsErrorIsAFault(t *testing.T) {
	for name, err := range map[string]error{
		"a Problem":                       (*senderauth.Problem)(nil),
		"a Problem, wrapped":              fmt.Errorf("why: %w", (*senderauth.Problem)(nil)),
		"an error that looks into itself": (*wrapping)(nil),
		"an error that compares itself":   (*comparing)(nil),
	} {
		for _, cached := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cached %v", name, cached), func(t *testing.T) {
				var v senderauth.Validator = refuseWith(err)
				if cached {
					v = newCache(t, v, senderauth.CacheConfig{})
				}
				guard, err := senderauth.New(v, senderauth.Config{Limits: limits(three)})
				require.NoError(t, err)
				a := &app{}
				require.Equal(t, internal, serve(guard.Wrap(a.hello()), of(1)))
				require.Empty(t, a.served)
			})
		}
	}
}

type wrapping struct{ err error }

func (w *wrapping) Error() string { return w.err.Error() }
func (w *wrapping) Unwrap() error { return w.err }

type comparing struct{ err error }

func (c *comparing) Error() string        { return c.err.Error() }
func (c *comparing) Is(target error) bool { return c.err == target }

// Credentials are those two fields and nothing else of a request, and what else
// is in it changes no refusal.
func TestCredentialsAreTheTwoHeadersAlone(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	id, key := senderID(1), apiKey(1)
	r := httptest.NewRequest("POST", "/?x-api-key="+key+"&x-sender-id="+id, strings.NewReader("x-api-key="+key+"&x-sender-id="+id))
	r.URL.User = url.UserPassword(id, key)
	r.Trailer = http.Header{"X-Api-Key": {key}, "X-Sender-Id": {id}}
	for _, line := range []string{
		"Content-Type: application/x-www-form-urlencoded", "Authorization: Bearer " + key, "Proxy-Authorization: ApiKey " + key,
		"Cookie: x-api-key=" + key + "; x-sender-id=" + id, "x_api_key: " + key, "x.api.key: " + key, "X-Api-Key2: " + key, "Api-Key: " + key,
		"Accept: text/html", "Accept-Language: de", "Accept-Encoding: gzip", "If-None-Match: *", "If-Match: *", "Range: bytes=0-1", "Expect: x",
	} {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	require.Equal(t, noKey, serve(a, r))
	r.Header.Set("x-api-key", key)
	require.Equal(t, noSender, serve(a, r))
	require.Empty(t, a.asked)
	body, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), key, "the body is not read")
	require.Nil(t, r.Form)
}

// An admitted request's body is the handler's, unread.
func TestBodyIsTheHandlers(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{StripKey: true})
	r := of(1)
	r.Method, r.Body, r.ContentLength = "POST", io.NopCloser(strings.NewReader("whole")), 5
	serve(a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		require.NoError(t, err)
		require.Equal(t, "whole", string(body))
		require.EqualValues(t, 5, r.ContentLength)
	})), r)
}

// However much a client sends, it costs no memory of ours.
func TestHugeHeadersAllocateLittle(t *testing.T) {
	huge := strings.Repeat("a", 900_000)
	cached, err := senderauth.New(newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{}), senderauth.Config{
		Limits: limits(three), CheckKey: anyKey,
	})
	require.NoError(t, err)
	plain := newApp(t, nil, senderauth.Config{})
	for _, h := range []http.Handler{plain, cached.Wrap(http.NotFoundHandler())} {
		for _, r := range []*http.Request{
			request("x-sender-id", senderID(1), "x-api-key", huge), request("x-sender-id", huge, "x-api-key", apiKey(1)),
			request("x-sender-id", strings.ToUpper(huge), "x-api-key", strings.ToUpper(huge)),
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range 100 {
				h.ServeHTTP(&silent{}, r)
			}
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(100*4<<10))
		}
	}
	require.Empty(t, plain.asked)
}

// Whatever key a sender uses, its requests are charged to one bucket.
func TestKeysOfASenderShareItsBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		second := senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(7)}
		keys, err := senderauth.Static(pair(1), second)
		require.NoError(t, err)
		a := newApp(t, keys.Validate, senderauth.Config{})
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(a, request("x-sender-id", senderID(1), "x-api-key", apiKey(7))))
	})
}

// What a mux inside says of its own is a response to a charged request.
func TestAnswersOfAMuxAreCharged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		mux := http.NewServeMux()
		mux.Handle("POST /messages/", a.hello())
		h := a.guard.Wrap(mux)
		for left, c := range []struct {
			method, path string
			status       int
		}{{"POST", "/messages", 307}, {"GET", "/messages/7", 405}, {"GET", "/nothing", 404}} {
			r := of(1)
			r.Method, r.URL.Path = c.method, c.path
			got := serve(h, r)
			require.Equal(t, c.status, got.Status)
			require.Equal(t, strconv.Itoa(2-left), got.Header["X-Ratelimit-Remaining"])
		}
		require.Equal(t, 429, serve(h, of(1)).Status)
	})
}

// No field of a request goes past what is remembered.
func TestRequestsDoNotBypassTheCache(t *testing.T) {
	cache := newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{})
	guard, err := senderauth.New(cache, senderauth.Config{Limits: limits(senderauth.Unlimited())})
	require.NoError(t, err)
	for range 3 {
		for _, key := range []string{apiKey(1), apiKey(2)} { // accepted, and rejected
			r := request("x-sender-id", senderID(1), "x-api-key", key, "Cache-Control", "no-cache, no-store, max-age=0", "Pragma", "no-cache")
			serve(guard.Wrap(http.NotFoundHandler()), r)
		}
	}
	require.EqualValues(t, 2, cache.Stats().Lookups)
}

// Step 1 to 5 come before the limiter, so that nobody's quota is touched.
func TestRefusedRequestsTakeNoQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		for range 10 {
			serve(a, request("x-sender-id", senderID(1), "x-api-key", senderID(1)))
			serve(a, request("x-sender-id", senderID(1), "x-api-key", apiKey(2)))
			serve(a, request("x-sender-id", senderID(1)))
		}
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
	})
}

func TestAdmittedAndLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		for left := 2; left >= 0; left-- {
			require.Equal(t, hello(1).with(threeLeft(left)...), serve(a, of(1)))
		}
		time.Sleep(300 * time.Millisecond)
		// 0.7 s to the token, 2.7 s to the full bucket: both are rounded up.
		over := limited("1").with(threeLeft(0)...)
		require.Equal(t, over, serve(a, of(1)))
		head := of(1)
		head.Method = http.MethodHead
		require.Equal(t, over.head(), serve(a, head))
		// What an outer layer has said of another representation goes.
		require.Equal(t, over, serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", "7")
			w.Header()["cache-control"] = []string{"public"}
			w.Header()["RateLimit"] = []string{"outer"}
			a.ServeHTTP(w, r)
		}), of(1)))
		// Another sender is not touched, and letters have no case.
		time.Sleep(700 * time.Millisecond)
		require.Equal(t, hello(2).with(threeLeft(2)...), serve(a, of(2)))
		upper := request("X-SENDER-ID", strings.ToUpper(senderID(1)), "X-API-KEY", strings.ToUpper(apiKey(1)))
		require.Equal(t, hello(1).with(threeLeft(0)...), serve(a, upper))
		require.Equal(t, pair(1), a.asked[len(a.asked)-1])
		require.Len(t, a.served, 5)
	})
}

func TestPitfall10RetryAfterIsRoundedUpAndNeverZero(t *testing.T) {
	for _, c := range []struct {
		retry time.Duration
		want  response
	}{
		{0, limited("1")},
		{1, limited("1")},
		{time.Second, limited("1")},
		{time.Second + 1, limited("2")},
		{100 * time.Second, limited("100")},
		{-1, refused(429, "Rate limit exceeded.")},
	} {
		t.Run(c.retry.String(), func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return []senderauth.Balance{{Refused: true, RetryAfter: c.retry}}, nil
			})})
			require.Equal(t, c.want, serve(a, of(1)))
		})
	}
}

// takes is a limiter that is a function.
type takes func(charges []senderauth.Charge) ([]senderauth.Balance, error)

func (f takes) Take(_ context.Context, _ string, charges []senderauth.Charge) ([]senderauth.Balance, error) {
	return f(charges)
}

func TestKeyOnly(t *testing.T) {
	for name, cached := range map[string]bool{"validator": false, "cache": true} {
		bubble(t, name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{KeyOnly: true})
			cache := newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{})
			if cached {
				guard, err := senderauth.New(cache, senderauth.Config{KeyOnly: true, Limits: limits(three)})
				require.NoError(t, err)
				a.Handler = guard.Wrap(a.hello())
			}
			require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, request("x-api-key", apiKey(1))))
			// What the sender header says does not matter, not even its form.
			require.Equal(t, hello(1).with(threeLeft(1)...), serve(a, request("x-api-key", apiKey(1), "x-sender-id", "x")))
			require.Equal(t, hello(2).with(threeLeft(2)...), serve(a, request("x-api-key", apiKey(2), "x-sender-id", senderID(1))))
			for _, c := range a.asked {
				require.Empty(t, c.SenderID)
			}
			if cached { // a guard and who asks directly have the same entries
				_, err := cache.Validate(context.Background(), senderauth.Credentials{APIKey: apiKey(1)})
				require.NoError(t, err)
				require.EqualValues(t, 2, cache.Stats().Lookups)
			}
		})
	}
}

func TestCheckKeySeesTheKeyAsItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checked []string
		accept := func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: c.SenderID}, nil
		}
		a := newApp(t, accept, senderauth.Config{CheckKey: func(key string) bool {
			checked = append(checked, key)
			return strings.HasPrefix(key, "SK_")
		}})
		long := "SK_" + strings.Repeat("~", 509)
		for i, key := range []string{"SK_Ab", long} {
			require.Equal(t, hello(1).with(threeLeft(2-i)...), serve(a, request("x-sender-id", senderID(1), "x-api-key", key)))
		}
		require.Equal(t, badKey, serve(a, request("x-sender-id", senderID(1), "x-api-key", "sk_Ab")))
		require.Equal(t, []string{"SK_Ab", long, "sk_Ab"}, checked)
		require.Equal(t, []senderauth.Credentials{{SenderID: senderID(1), APIKey: "SK_Ab"}, {SenderID: senderID(1), APIKey: long}}, a.asked)
	})
}

func TestStripKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{StripKey: true})
		r := of(1)
		before := r.Header.Clone()
		for i := range 2 { // one request can be served twice
			require.Equal(t, hello(1).with(threeLeft(2-i)...), serve(a, r))
			require.Equal(t, before, r.Header)
			inner := a.served[i]
			require.Equal(t, http.Header{"X-Sender-Id": {senderID(1)}}, inner.Header)
			inner.Header.Set("X-Sender-Id", "changed")
			require.Equal(t, before, r.Header)
		}
		b := newApp(t, nil, senderauth.Config{})
		serve(b, r)
		require.Equal(t, before, b.served[0].Header)
	})
}

func TestRequireTLS(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fe80::/10")}
	for _, c := range []struct {
		name, peer string
		lines      []string
		tls        bool
		admitted   bool
	}{
		{name: "TLS", peer: "192.0.2.1:1", tls: true, admitted: true},
		{name: "TLS, and a proxy that says http", peer: "10.0.0.1:1", tls: true, lines: []string{"X-Forwarded-Proto", "http"}, admitted: true},
		{name: "trusted https", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted HTTPS, HTTPS", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "HTTPS,\thttps "}, admitted: true},
		{name: "trusted, mapped to IPv6", peer: "[::ffff:10.0.0.1]:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted, with a zone", peer: "[fe80::1%eth0]:1", lines: []string{"X-Forwarded-Proto", "https"}, admitted: true},
		{name: "trusted, nothing said", peer: "10.0.0.1:1"},
		{name: "trusted, empty", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", ""}},
		{name: "trusted http", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "http"}},
		{name: "trusted https, http", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https, http"}},
		{name: "trusted https and http in two lines", peer: "10.0.0.1:1", lines: []string{"X-Forwarded-Proto", "https", "X-Forwarded-Proto", "http"}},
		{name: "not trusted", peer: "192.0.2.1:1", lines: []string{"X-Forwarded-Proto", "https"}},
		{name: "no address", peer: "@", lines: []string{"X-Forwarded-Proto", "https"}},
	} {
		bubble(t, c.name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RequireTLS: true, TrustedProxies: trusted})
			r := request(append(c.lines, "x-sender-id", senderID(1), "x-api-key", apiKey(1))...)
			r.RemoteAddr = c.peer
			if c.tls {
				r.TLS = &tls.ConnectionState{}
			}
			want := hello(1).with(threeLeft(2)...)
			if !c.admitted {
				want = refused(403, "HTTPS is required")
			}
			require.Equal(t, want, serve(a, r))
			require.Equal(t, c.admitted, len(a.asked) == 1)
		})
	}
}

func TestSeveralLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{
			"default": three, "sensitive": {Requests: 1, Per: 10 * time.Second, Burst: 2}, "open": senderauth.Unlimited(),
		}})
		h := a.guard.Charging("default", "open", "sensitive").Wrap(a.hello())
		policy := `"default";q=3;w=3, "sensitive";q=2;w=20`
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"default";r=2;t=1, "sensitive";r=1;t=10`, policy)...), serve(h, of(1)))
		require.Equal(t, hello(1).with(rateFields(2, 0, 20, `"default";r=1;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		for range 3 { // all of them or none: default keeps its token
			require.Equal(t, limited("10").with(rateFields(2, 0, 20, `"default";r=1;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		}
		require.Equal(t, "sensitive", a.events[2].Limit)
		require.Equal(t, hello(1).with(threeLeft(0)...), serve(a, of(1)))
		// Both refuse: the longest wait is what the client is told.
		require.Equal(t, limited("10").with(rateFields(3, 0, 3, `"default";r=0;t=1, "sensitive";r=0;t=10`, policy)...), serve(h, of(1)))
		require.Equal(t, "sensitive", a.events[len(a.events)-1].Limit)
	})
}

// Of several waits the longest is told, and never is longer than any.
func TestLongestWaitDecides(t *testing.T) {
	for _, c := range []struct {
		a, b  time.Duration
		limit string
		want  response
	}{
		{2 * time.Second, 9 * time.Second, "b", limited("9")},
		{9 * time.Second, 2 * time.Second, "a", limited("9")},
		{-1, 9 * time.Second, "a", refused(429, "Rate limit exceeded.")},
		{9 * time.Second, -1, "b", refused(429, "Rate limit exceeded.")},
	} {
		a := newApp(t, nil, senderauth.Config{
			Limits: map[string]senderauth.Limit{"default": three, "a": three, "b": three}, RateFields: senderauth.RateFieldsNone,
			Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return []senderauth.Balance{{Refused: true, RetryAfter: c.a}, {Refused: true, RetryAfter: c.b}}, nil
			}),
		})
		require.Equal(t, c.want, serve(a.guard.Charging("a", "b").Wrap(a.hello()), of(1)))
		require.Equal(t, c.limit, a.events[0].Limit)
	}
}

func TestSenderLimitsOverride(t *testing.T) {
	plans := map[string]map[string]senderauth.Limit{
		senderID(1): {"default": {Requests: 2, Per: 20 * time.Second}, "unheard of": senderauth.PerSecond(1)},
		senderID(2): {"default": senderauth.Unlimited()},
		senderID(3): {"default": senderauth.Blocked()},
	}
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			s, err := knowsAll(ctx, c)
			s.Limits = plans[s.ID]
			return s, err
		}, senderauth.Config{})
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"default";r=1;t=10`, `"default";q=2;w=20`)...), serve(a, of(1)))
		for range 10 {
			require.Equal(t, hello(2), serve(a, of(2)))
		}
		blocked := refused(429, "Rate limit exceeded.").with(rateFields(0, 0, 0, `"default";r=0`, `"default";q=0`)...)
		require.Equal(t, blocked, serve(a, of(3)))
		require.Equal(t, hello(4).with(threeLeft(2)...), serve(a, of(4)))
	})
}

func TestLimiterFailure(t *testing.T) {
	outage := errors.New("redis: connection refused")
	for name, c := range map[string]struct {
		balances []senderauth.Balance
		err      error
		closed   bool
		want     response
		outcome  senderauth.Outcome
	}{
		"open":                  {err: outage, want: hello(1), outcome: "admitted"},
		"closed":                {err: outage, closed: true, want: unavailable, outcome: "unavailable"},
		"too few balances":      {want: hello(1), outcome: "admitted"},
		"too many, closed":      {balances: make([]senderauth.Balance, 2), closed: true, want: unavailable, outcome: "unavailable"},
		"balances and an error": {balances: []senderauth.Balance{{Refused: true}}, err: outage, want: hello(1), outcome: "admitted"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{FailClosed: c.closed, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
				return c.balances, c.err
			})})
			require.Equal(t, c.want, serve(a, of(1)))
			require.Equal(t, []senderauth.Outcome{c.outcome}, a.outcomes())
			require.Error(t, a.events[0].Err)
			if c.err != nil {
				require.ErrorIs(t, a.events[0].Err, outage)
			}
			require.Equal(t, senderID(1), a.events[0].Sender.ID)
		})
	}
}

// The store of the keys and that of the limits are often one: an event tells of
// both outages.
func TestEventOfTwoOutages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := &backend{}
		limiterOutage := errors.New("redis: connection refused")
		var events []senderauth.Event
		guard, err := senderauth.New(newCache(t, back, senderauth.CacheConfig{StaleTTL: time.Hour}), senderauth.Config{
			Limits:  limits(three),
			Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { return nil, limiterOutage }),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		serve(h, of(1))
		back.set(refuseWith(errOutage))
		time.Sleep(2 * time.Minute)
		serve(h, of(1))
		require.Len(t, events, 2)
		require.ErrorIs(t, events[0].Err, limiterOutage)
		require.ErrorIs(t, events[1].Err, limiterOutage)
		require.ErrorIs(t, events[1].Err, errOutage)
		require.Equal(t, senderauth.Admitted, events[1].Outcome)
	})
}

// A panic of the program's own functions lets nobody through, and is not
// swallowed: http.ErrAbortHandler is a way to end a request.
func TestPanicOfAFunctionFailsClosed(t *testing.T) {
	abort := func() { panic(http.ErrAbortHandler) }
	for name, cfg := range map[string]senderauth.Config{
		"Limiter": {Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) { abort(); return nil, nil })},
		"Observe": {Observe: func(context.Context, senderauth.Event) { abort() }},
	} {
		a := newApp(t, nil, cfg)
		require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(a, of(1)) }, name)
		require.Empty(t, a.served, name)
	}
	a := newApp(t, nil, senderauth.Config{ServeProblem: func(http.ResponseWriter, *http.Request, *senderauth.Problem) { abort() }})
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(a, request()) })
	h := a.guard.ChargingBy(func(*http.Request) []string { abort(); return nil }).Wrap(a.hello())
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { serve(h, of(1)) })
	require.Empty(t, a.served)
}

// A limiter of another kind gets what MemoryLimiter gets, and may do with the
// slice what it likes.
func TestLimiterOfAnotherKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked [][]senderauth.Charge
		a := newApp(t, nil, senderauth.Config{Limiter: takes(func(charges []senderauth.Charge) ([]senderauth.Balance, error) {
			asked = append(asked, append([]senderauth.Charge(nil), charges...))
			clear(charges)
			return []senderauth.Balance{{Remaining: 2, ResetAfter: time.Second}}, nil
		})})
		for range 2 {
			require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, of(1)))
		}
		want := []senderauth.Charge{{Name: "default", Limit: three, Cost: 1}}
		require.Equal(t, [][]senderauth.Charge{want, want}, asked)
	})
}

func TestNestedGuards(t *testing.T) {
	both := `"messages";q=2;w=20, "default";q=3;w=3`
	newNested := func(t *testing.T) *app {
		return newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{
			"default": three, "messages": {Requests: 2, Per: 20 * time.Second}, "open": senderauth.Unlimited(),
		}})
	}
	bubble(t, "one authentication, and each its own charge", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.Charging("messages").Wrap(a.hello()))
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"messages";r=1;t=10, "default";r=2;t=1`, both)...), serve(h, of(1)))
		require.Len(t, a.asked, 1)
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted"}, a.outcomes())
		require.Equal(t, "default", a.events[0].Limit)
		require.Equal(t, "messages", a.events[1].Limit)
		require.Equal(t, senderID(1), a.events[1].Sender.ID)
		require.False(t, a.events[0].Cached)
		require.True(t, a.events[1].Cached)

		serve(h, of(1))
		over := limited("10").with(rateFields(2, 0, 20, `"messages";r=0;t=10, "default";r=0;t=1`, both)...)
		require.Equal(t, over, serve(h, of(1)), "default was charged by the guard outside")
	})
	bubble(t, "authentication outside, charge inside", func(t *testing.T) {
		a := newNested(t)
		mux := http.NewServeMux()
		mux.Handle("POST /v1/messages", a.guard.Charging("messages").Wrap(a.hello()))
		h := a.guard.Charging().Wrap(mux)
		r := of(1)
		r.Method, r.URL.Path = "POST", "/v1/messages"
		require.Equal(t, hello(1).with(rateFields(2, 1, 10, `"messages";r=1;t=10`, `"messages";q=2;w=20`)...), serve(h, r))
		require.Equal(t, "POST /v1/messages", r.Pattern)
		require.Equal(t, noKey, serve(h, request()), "401 comes before 404")
		require.Equal(t, 404, serve(h, of(1)).Status)
	})
	bubble(t, "a third guard knows of the first", func(t *testing.T) {
		a := newNested(t)
		for _, middle := range []*senderauth.Guard{a.guard.Charging(), a.guard.Charging("open")} {
			h := a.guard.Wrap(middle.Wrap(a.guard.Charging("messages").Wrap(a.hello())))
			require.Equal(t, both, serve(h, of(1)).Header["Ratelimit-Policy"])
		}
	})
	bubble(t, "the first guard chose its limits by the request", func(t *testing.T) {
		a := newNested(t)
		first := a.guard.ChargingBy(func(*http.Request) []string { return []string{"default"} })
		require.Equal(t, both, serve(first.Wrap(a.guard.Charging("messages").Wrap(a.hello())), of(1)).Header["Ratelimit-Policy"])
	})
	bubble(t, "the same limit twice is two charges", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.Wrap(a.hello()))
		require.Equal(t, hello(1).with(threeLeft(1)...), serve(h, of(1)))
	})
	bubble(t, "different guards each authenticate", func(t *testing.T) {
		a, b := newNested(t), newNested(t)
		h := a.guard.Wrap(b.guard.Wrap(b.hello()))
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
		require.Len(t, a.asked, 1)
		require.Len(t, b.asked, 1)

		strict := newApp(t, refuseWith(senderauth.ErrInvalidKey), senderauth.Config{})
		require.Equal(t, badKey, serve(a.guard.Wrap(strict), of(1)))
	})
	bubble(t, "a refusal inside tells nothing of the quota outside", func(t *testing.T) {
		a := newNested(t)
		h := a.guard.Wrap(a.guard.ChargingBy(func(*http.Request) []string { return []string{"none"} }).Wrap(a.hello()))
		require.Equal(t, internal, serve(h, of(1)))
	})
	bubble(t, "WithSender satisfies no guard", func(t *testing.T) {
		a := newNested(t)
		r := request()
		r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)}))
		require.Equal(t, noKey, serve(a, r))
		r = of(2)
		r = r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)}))
		require.Equal(t, hello(2).with(threeLeft(2)...), serve(a, r))

		// Nor does it behind a guard make another sender of the one that was found.
		between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			a.ServeHTTP(w, r.WithContext(senderauth.WithSender(r.Context(), senderauth.Sender{ID: senderID(1)})))
		})
		require.Equal(t, hello(2).with(threeLeft(1)...), serve(a.guard.Charging().Wrap(between), of(2)))
	})
}

func TestCharging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		require.Equal(t, hello(1), serve(a.guard.Charging().Wrap(a.hello()), of(1)), "no names: authentication alone")
		require.Equal(t, noKey, serve(a.guard.Charging().Wrap(a.hello()), request()))
		require.PanicsWithError(t, `senderauth: limit "mesages" is not in Config.Limits`, func() { a.guard.Charging("mesages") })
		require.PanicsWithError(t, `senderauth: limit "default" is charged twice`, func() { a.guard.Charging("default", "default") })
		require.PanicsWithValue(t, "senderauth: ChargingBy: the function is nil", func() { a.guard.ChargingBy(nil) })
		require.PanicsWithValue(t, "senderauth: Wrap: the handler is nil", func() { a.guard.Wrap(nil) })
		require.PanicsWithValue(t, "senderauth: Wrap: the handler is nil", func() { a.guard.Wrap(http.HandlerFunc(nil)) })

		// What New returns beside an error, and what it did not return.
		for _, g := range []*senderauth.Guard{nil, {}} {
			const text = "senderauth: the Guard was not made by New, or New returned an error"
			require.PanicsWithValue(t, text, func() { g.Wrap(a.hello()) })
			require.PanicsWithValue(t, text, func() { g.Charging() })
			require.PanicsWithValue(t, text, func() { g.ChargingBy(func(*http.Request) []string { return nil }) })
		}
	})
}

func TestChargingBy(t *testing.T) {
	bubble(t, "chosen for each request", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": three}})
		h := a.guard.ChargingBy(func(r *http.Request) []string {
			_, ok := senderauth.SenderFrom(r.Context())
			require.True(t, ok, "f sees the request of an authenticated sender")
			if names := r.URL.Query().Get("charge"); names != "" {
				return strings.Split(names, ",")
			}
			return nil
		}).Wrap(a.hello())
		for _, c := range []struct {
			query string
			want  response
		}{
			{"", hello(1)},
			{"?charge=messages", hello(1).with(rateFields(3, 2, 1, `"messages";r=2;t=1`, `"messages";q=3;w=3`)...)},
			{"?charge=unknown", internal},
			{"?charge=default,unknown", internal},
			{"?charge=default,default", internal},
			{"?charge=default", hello(1).with(threeLeft(2)...)},
		} {
			r := of(1)
			r.URL.RawQuery = strings.TrimPrefix(c.query, "?")
			require.Equal(t, c.want, serve(h, r), c.query)
		}
		require.Equal(t, []senderauth.Outcome{"admitted", "admitted", "failed", "failed", "failed", "admitted"}, a.outcomes())
		require.EqualError(t, a.events[2].Err, `senderauth: limit "unknown" is not in Config.Limits`)
		require.Equal(t, senderID(1), a.events[2].Sender.ID)
		require.Equal(t, noKey, serve(h, request()), "nobody chooses for a stranger")
	})
	bubble(t, "by the route that was matched inside", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: map[string]senderauth.Limit{"default": three, "messages": three}})
		charged := a.guard.ChargingBy(func(r *http.Request) []string {
			if r.Pattern == "/messages/{id}" && r.PathValue("id") == "7" {
				return []string{"messages"}
			}
			return []string{"default"}
		}).Wrap(a.hello())
		mux := http.NewServeMux()
		mux.Handle("/messages/{id}", charged)
		type key struct{}
		between := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, 1)))
		})
		r := of(1)
		r.URL.Path = "/messages/7"
		require.Equal(t, `"messages";q=3;w=3`, serve(a.guard.Charging().Wrap(between), r).Header["Ratelimit-Policy"])
	})
}

func TestPatternIsSetOnTheOuterRequest(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	mux := http.NewServeMux()
	mux.Handle("GET /contacts/{id}", a.hello())
	r := of(1)
	r.URL.Path = "/contacts/7"
	require.Equal(t, 200, serve(a.guard.Wrap(mux), r).Status)
	require.Equal(t, "GET /contacts/{id}", r.Pattern)

	// One that recovers, and logs the route of the 500, sees it too.
	mux.HandleFunc("GET /panics", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	r = of(1)
	r.URL.Path = "/panics"
	require.Panics(t, func() { serve(a.guard.Wrap(mux), r) })
	require.Equal(t, "GET /panics", r.Pattern)
}

// net/http removes the files of the request that it made, not of our copy.
func TestUploadLeavesNoTemporaryFile(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	files := func() int {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		return len(entries)
	}
	a := newApp(t, nil, senderauth.Config{})
	server := httptest.NewServer(a.guard.Wrap(a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil || files() != 1 {
			t.Errorf("%v, %d files", err, files())
		}
	}))))
	defer server.Close()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "name")
	require.NoError(t, err)
	file.Write(make([]byte, 100))
	require.NoError(t, form.Close())
	r, err := http.NewRequest("POST", server.URL, &body)
	require.NoError(t, err)
	r.Header = of(1).Header
	r.Header.Set("Content-Type", form.FormDataContentType())
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	res.Body.Close()
	server.Close() // which waits for the request to be finished
	require.Zero(t, files())
}

func TestCacheControl(t *testing.T) {
	for _, c := range []struct {
		name           string
		outer, handler []string
		want           string
	}{
		{name: "nobody says anything", want: "private"},
		{name: "the handler decides", handler: []string{"public, max-age=60"}, want: "public, max-age=60"},
		{name: "the handler decides, in two lines", handler: []string{"no-cache", "private"}, want: "no-cache\nprivate"},
		{name: "an outer no-store is stricter", outer: []string{"no-store"}, want: "no-store"},
		{name: "an outer private stays", outer: []string{"private, max-age=5"}, want: "private, max-age=5"},
		{name: "whatever its case", outer: []string{"max-age=0,\tNo-Store"}, want: "max-age=0,\tNo-Store"},
		{name: "an outer private of one field is not enough", outer: []string{`public, private="Set-Cookie"`}, want: "private"},
		{name: "an outer public does not", outer: []string{"public, max-age=60"}, want: "private"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone})
			inner := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.handler != nil {
					w.Header()["Cache-Control"] = c.handler
				}
				a.hello().ServeHTTP(w, r)
			}))
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.outer != nil {
					w.Header()["Cache-Control"] = c.outer
				}
				inner.ServeHTTP(w, r)
			})
			require.Equal(t, hello(1).with("Cache-Control", c.want), serve(h, of(1)))
		})
	}
	// The value is one's own: who writes into it does not write into others'.
	a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone})
	h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, lines := range w.Header() {
			lines[0] = "public"
		}
	}))
	for range 2 {
		serve(h, of(1))
	}
	require.Equal(t, hello(1), serve(a, of(1)))
}

// What the handler answers is left alone: its own 401, its own rate fields.
func TestHandlersAnswerIsItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{})
		h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Content-Type"] = []string{"text/plain"}
			w.Header().Set("X-RateLimit-Remaining", "own")
			w.WriteHeader(401)
		}))
		want := response{401, map[string]string{"Content-Type": "text/plain", "Cache-Control": "private"}, ""}
		require.Equal(t, want.with(threeLeft(2)...).with("X-Ratelimit-Remaining", "own"), serve(h, of(1)))
	})
	// A field that is added to does not run into the next.
	for _, name := range []string{"Cache-Control", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Ratelimit", "Ratelimit-Policy"} {
		bubble(t, name, func(t *testing.T) {
			a := newApp(t, nil, senderauth.Config{})
			h := a.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Add(name, "more")
				a.hello().ServeHTTP(w, r)
			}))
			want := hello(1).with(threeLeft(2)...)
			require.Equal(t, want.with(name, want.Header[name]+"\nmore"), serve(h, of(1)))
		})
	}
}

func TestServeProblem(t *testing.T) {
	var got []senderauth.Problem
	cfg := senderauth.Config{Realm: "r", ServeProblem: func(w http.ResponseWriter, r *http.Request, p *senderauth.Problem) {
		got = append(got, *p)
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
			require.Equal(t, []senderauth.Problem{{Status: 401, Detail: "Header x-api-key not found", Challenge: `ApiKey realm="r"`}}, got)
			require.Equal(t, `{"status":401,"title":"Unauthorized","detail":"Header x-api-key not found (ours)","type":"about:blank","instance":"/requests/1"}`, res.Body)
			require.Equal(t, `ApiKey realm="r"`, res.Header["Www-Authenticate"])
		}
	})
	bubble(t, "an outage, with its cause", func(t *testing.T) {
		outage := errors.New("outage")
		res := serveOnce(t, refuseWith(outage), of(1))
		require.Equal(t, []senderauth.Problem{{Status: 503, Detail: "The service is temporarily unavailable. Please retry.", RetryAfter: time.Second, Err: outage}}, got)
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
	bubble(t, "over the limit", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, cfg)
		for range 4 {
			serve(a, of(1))
		}
		require.Equal(t, []senderauth.Problem{{Status: 429, Detail: "Rate limit exceeded. Please retry after 1 seconds.", RetryAfter: time.Second}}, got)
		res := serve(a, of(1))
		require.Equal(t, "1", res.Header["Retry-After"])
		require.Equal(t, "0", res.Header["X-Ratelimit-Remaining"])
	})
	bubble(t, "blocked", func(t *testing.T) {
		got = nil
		a := newApp(t, nil, senderauth.Config{ServeProblem: cfg.ServeProblem, Limits: limits(senderauth.Blocked())})
		serve(a, of(1))
		require.Equal(t, []senderauth.Problem{{Status: 429, Detail: "Rate limit exceeded."}}, got)
	})
}

func TestEvents(t *testing.T) {
	bubble(t, "admitted, from the cache, stale, limited", func(t *testing.T) {
		outage := errors.New("outage")
		var down bool
		cache := newCache(t, senderauth.ValidatorFunc(func(ctx context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			time.Sleep(20 * time.Millisecond)
			if down {
				return senderauth.Sender{}, outage
			}
			return knowsAll(ctx, c)
		}), senderauth.CacheConfig{StaleTTL: time.Hour})
		var events []senderauth.Event
		guard, err := senderauth.New(cache, senderauth.Config{
			Limits:  limits(senderauth.Limit{Requests: 1, Per: time.Hour, Burst: 3}),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		serve(h, of(1))
		serve(h, of(1))
		down = true
		time.Sleep(time.Minute + time.Second)
		serve(h, of(1))
		serve(h, of(1))
		serve(h, of(3))
		s := senderauth.Sender{ID: senderID(1), KeyID: "key-1"}
		require.Equal(t, []senderauth.Event{
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Elapsed: 20 * time.Millisecond},
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Cached: true},
			{Outcome: senderauth.Admitted, Sender: s, Limit: "default", Cached: true, Elapsed: 20 * time.Millisecond, Err: outage},
			{Outcome: senderauth.Limited, Sender: s, Limit: "default", Cached: true},
			{Outcome: senderauth.Unavailable, Elapsed: 20 * time.Millisecond, Err: outage},
		}, events)
	})
	bubble(t, "a rejection, then a remembered one", func(t *testing.T) {
		var events []senderauth.Event
		cause := fmt.Errorf("expired: %w", senderauth.ErrInvalidKey)
		guard, err := senderauth.New(newCache(t, refuseWith(cause), senderauth.CacheConfig{}), senderauth.Config{
			Limits:  limits(three),
			Observe: func(_ context.Context, e senderauth.Event) { events = append(events, e) },
		})
		require.NoError(t, err)
		h := guard.Wrap(http.NotFoundHandler())
		for range 2 {
			require.Equal(t, badKey, serve(h, of(1)))
		}
		require.Equal(t, []senderauth.Event{
			{Outcome: senderauth.InvalidKey, Err: cause},
			{Outcome: senderauth.InvalidKey, Cached: true, Err: cause},
		}, events)
	})
	t.Run("the event comes before the next handler", func(t *testing.T) {
		told := false
		guard, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three),
			Observe: func(context.Context, senderauth.Event) { told = true }})
		require.NoError(t, err)
		serve(guard.Wrap(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { require.True(t, told) })), of(1))
	})
}

// The outcomes are labels of metrics: a change is one for every dashboard.
func TestOutcomesAreFixed(t *testing.T) {
	require.Equal(t, []senderauth.Outcome{"admitted", "missing_key", "missing_sender", "invalid_sender", "invalid_key",
		"mismatch", "limited", "insecure", "refused", "unavailable", "canceled", "failed"},
		[]senderauth.Outcome{senderauth.Admitted, senderauth.MissingKey, senderauth.MissingSender, senderauth.InvalidSender, senderauth.InvalidKey,
			senderauth.Mismatch, senderauth.Limited, senderauth.Insecure, senderauth.Refused, senderauth.Unavailable, senderauth.Canceled, senderauth.Failed})
}

func TestCanceled(t *testing.T) {
	wait := func(ctx context.Context, _ senderauth.Credentials) (senderauth.Sender, error) {
		<-ctx.Done()
		return senderauth.Sender{}, ctx.Err()
	}
	t.Run("nothing is written", func(t *testing.T) {
		for _, serveProblem := range []func(http.ResponseWriter, *http.Request, *senderauth.Problem){nil,
			func(http.ResponseWriter, *http.Request, *senderauth.Problem) {
				t.Error("a problem is served to nobody")
			}} {
			a := newApp(t, wait, senderauth.Config{ServeProblem: serveProblem})
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			w := &silent{}
			a.ServeHTTP(w, of(1).WithContext(ctx))
			require.Zero(t, w.calls)
			require.Equal(t, []senderauth.Outcome{"canceled"}, a.outcomes())
			require.ErrorIs(t, a.events[0].Err, context.Canceled)
		}
	})
	t.Run("a limiter that gave up is no outage", func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{FailClosed: true, Limiter: takes(func([]senderauth.Charge) ([]senderauth.Balance, error) {
			return nil, context.Canceled
		})})
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w := &silent{}
		a.ServeHTTP(w, of(1).WithContext(ctx))
		require.Zero(t, w.calls)
		require.Equal(t, []senderauth.Outcome{"canceled"}, a.outcomes())
	})
	t.Run("a deadline of an outer layer is an outage", func(t *testing.T) {
		a := newApp(t, wait, senderauth.Config{})
		ctx, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
		defer cancel()
		require.Equal(t, unavailable, serve(a, of(1).WithContext(ctx)))
	})
	t.Run("no 200 reaches a client who is there after all", func(t *testing.T) {
		asked := make(chan context.CancelFunc, 1)
		a := newApp(t, wait, senderauth.Config{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			asked <- cancel
			a.ServeHTTP(w, r.WithContext(ctx))
		}))
		defer server.Close()
		r, err := http.NewRequest("GET", server.URL, nil)
		require.NoError(t, err)
		r.Header = of(1).Header
		go func() { (<-asked)() }()
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			res.Body.Close()
			t.Fatalf("the client sees %s", res.Status)
		}
	})
}

// silent counts what is written.
type silent struct {
	header http.Header
	calls  int
}

func (s *silent) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}
func (s *silent) WriteHeader(int)             { s.calls++ }
func (s *silent) Write(b []byte) (int, error) { s.calls++; return len(b), nil }

func TestWriterIsUntouched(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{StripKey: true})
	w := &silent{}
	a.guard.Wrap(a.guard.Wrap(http.HandlerFunc(func(got http.ResponseWriter, _ *http.Request) {
		require.Same(t, w, got)
	}))).ServeHTTP(w, of(1))

	server := httptest.NewServer(a.guard.Charging().Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("the writer is no io.ReaderFrom")
		}
		if r.URL.Path == "/flush" {
			io.WriteString(w, "first")
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-r.Context().Done() // the rest comes never
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\nours")
	})))
	defer server.Close()

	r, err := http.NewRequest("GET", server.URL+"/flush", nil)
	require.NoError(t, err)
	r.Header = of(1).Header
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	first := make([]byte, 5)
	_, err = io.ReadFull(res.Body, first)
	require.NoError(t, err)
	require.Equal(t, "first", string(first))
	res.Body.Close()

	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "GET /hijack HTTP/1.1\r\nHost: x\r\nx-sender-id: %s\r\nx-api-key: %s\r\n\r\n", senderID(1), apiKey(1))
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 101 Switching Protocols\r\n\r\nours", string(all))
}

// Nothing of a key is in anything that leaves the package or is logged for it,
// whatever goes wrong.
func TestPitfall21NoPartOfAKeyAnywhere(t *testing.T) {
	var text bytes.Buffer
	var mu sync.Mutex
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(&text, format, args...)
	}
	for _, v := range []senderauth.ValidatorFunc{
		knowsAll,
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) { panic(c.APIKey) },
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			panic(fmt.Errorf("no %s", c.APIKey))
		},
		func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{}, fmt.Errorf("query for %v (%#v): timeout", c, c)
		},
		refuseWith(senderauth.ErrInvalidKey),
	} {
		for _, cached := range []bool{false, true} {
			var validator senderauth.Validator = v
			if cached {
				validator = newCache(t, v, senderauth.CacheConfig{})
			}
			guard, err := senderauth.New(validator, senderauth.Config{
				Limits:   limits(three),
				StripKey: true,
				CheckKey: func(key string) bool {
					if strings.HasPrefix(key, "panic") {
						panic(key)
					}
					return true
				},
				Observe: func(ctx context.Context, e senderauth.Event) {
					note("%v %+v %#v %v %+v", e, e, e.Err, e.Err, ctx)
				},
			})
			require.NoError(t, err)
			h := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				note("%v %+v %s", r.Context(), r.Context(), r.Header)
			}))
			server := httptest.NewUnstartedServer(h)
			server.Config.ErrorLog = log.New(writerFunc(func(b []byte) (int, error) { note("%s", b); return len(b), nil }), "", 0)
			server.Start()
			for _, key := range []string{apiKey(1), apiKey(2), apiKey(1) + "x", "panic" + apiKey(1)} {
				r, err := http.NewRequest("GET", server.URL, nil)
				require.NoError(t, err)
				r.Header.Set("x-sender-id", senderID(1))
				r.Header.Set("x-api-key", key)
				res, err := http.DefaultClient.Do(r)
				require.NoError(t, err)
				body, err := io.ReadAll(res.Body)
				require.NoError(t, err)
				res.Body.Close()
				note("%v %s", res.Header, body)
			}
			server.Close()
		}
	}
	require.Contains(t, text.String(), "panicked at")
	noPart(t, text.String(), apiKey(1))
	noPart(t, text.String(), apiKey(2))
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestNewReportsEveryMistake(t *testing.T) {
	var nobody *senderauth.Cache
	_, err := senderauth.New(nobody, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"a": {}, "b": {Requests: -1, Per: -1, Burst: -1}, "c\n": three, "": three,
			"d": {Requests: math.MaxInt, Per: 1, Burst: math.MaxInt},
		},
		Limiter:        (*senderauth.MemoryLimiter)(nil),
		SenderHeader:   "x sender",
		KeyHeader:      "host",
		Realm:          "r\n",
		RateFields:     9,
		TrustedProxies: []netip.Prefix{{}, netip.MustParsePrefix("::ffff:10.0.0.0/104")},
	})
	for _, part := range []string{
		"senderauth: New: the Validator is nil",
		`senderauth: Config.Limits: "default" is missing`,
		`senderauth: Config.Limits["a"]: the zero Limit`,
		`senderauth: Config.Limits["b"]: Requests is -1, not in 1..999999999999999, Per is -1ns, not above 0, Burst is -1, not in 0..999999999999999`,
		`senderauth: Config.Limits["d"]: Requests is 9223372036854775807, not in 1..999999999999999, Burst is 9223372036854775807, not in 0..999999999999999`,
		`senderauth: Config.Limits: the name "c\n" is not printable ASCII`,
		`senderauth: Config.Limits: the name "" is not printable ASCII`,
		"senderauth: Config.Limiter holds a nil *senderauth.MemoryLimiter",
		`senderauth: Config.SenderHeader: "x sender" is not the name of a header field`,
		"senderauth: Config.KeyHeader: net/http takes Host out of the header",
		`senderauth: Config.Realm: "r\n" is not printable ASCII`,
		"senderauth: Config.RateFields: 9 is not one of the constants",
		"senderauth: Config.TrustedProxies[0]: the prefix is not valid",
		"senderauth: Config.TrustedProxies[1]: ::ffff:10.0.0.0/104 is of no peer: write it as IPv4",
	} {
		require.ErrorContains(t, err, part)
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		require.True(t, strings.HasPrefix(line, "senderauth: "), line)
	}

	_, err = senderauth.New(nil, senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")
	_, err = senderauth.New(senderauth.ValidatorFunc(nil), senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three), KeyHeader: "X-Key", SenderHeader: "x-key"})
	require.EqualError(t, err, `senderauth: Config.KeyHeader and Config.SenderHeader are both "X-Key"`)
	_, err = senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{Limits: limits(three), KeyHeader: "X-Key", SenderHeader: "x-key", KeyOnly: true})
	require.NoError(t, err)
	_, err = senderauth.New(new(senderauth.Cache), senderauth.Config{Limits: limits(three), Limiter: new(senderauth.MemoryLimiter)})
	require.EqualError(t, err, "senderauth: Config.Limiter is a MemoryLimiter that NewMemoryLimiter did not make\n"+
		"senderauth: New: the Validator is a Cache that NewCache did not make")
	_, err = senderauth.New(struct{ senderauth.Validator }{senderauth.ValidatorFunc(knowsAll)}, senderauth.Config{Limits: limits(three)})
	require.NoError(t, err)
}

// Config is read once: a map or a slice that the caller changes afterwards
// changes nothing.
func TestConfigIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := senderauth.Config{
			Limits: limits(three), RequireTLS: true,
			TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")},
		}
		a := newApp(t, nil, cfg)
		cfg.Limits["default"] = senderauth.Blocked()
		cfg.TrustedProxies[0] = netip.Prefix{}
		r := of(1)
		r.Header.Set("X-Forwarded-Proto", "https")
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(a, r))
	})
}

// TestPitfall18SecondLineIsRefused, wherever it is and whatever it says: one
// side would read the first, the other the last.
func TestPitfall18SecondLineIsRefused(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	for _, c := range []struct {
		field, other string
		want         response
	}{
		{"x-api-key", apiKey(1), badKey}, {"x-api-key", apiKey(2), badKey}, {"x-api-key", "", badKey}, {"X-API-KEY", "x", badKey},
		{"x-sender-id", senderID(1), badSender}, {"x-sender-id", senderID(2), badSender}, {"x-sender-id", "", badSender},
	} {
		r := of(1)
		r.Header.Add(c.field, c.other)
		require.Equal(t, c.want, serve(a, r))
		r = request(c.field, c.other)
		for name, lines := range of(1).Header {
			r.Header.Add(name, lines[0])
		}
		require.Equal(t, c.want, serve(a, r))
	}
	require.Empty(t, a.asked)
}

// The sender comes out of the validator's record: no field of the request
// changes whose it is, and whose quota.
func TestPitfall19SenderComesFromTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApp(t, nil, senderauth.Config{Limits: limits(hourly(1))})
		require.Equal(t, mismatched, serve(a, request("x-sender-id", senderID(2), "x-api-key", apiKey(1))))
		r := of(1)
		for _, name := range []string{"X_sender_id", "X-Sender", "X-Forwarded-User", "X-Tenant-Id", "Forwarded"} {
			r.Header.Set(name, senderID(2))
		}
		r.URL.RawQuery = "x-sender-id=" + senderID(2)
		require.Equal(t, "hello "+senderID(1), serve(a, r).Body)
		require.Equal(t, 429, serve(a, of(1)).Status)
		require.Equal(t, 200, serve(a, of(2)).Status)

		// A validator that believes the request is found out.
		believes := newApp(t, func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
			return senderauth.Sender{ID: senderID(1)}, nil
		}, senderauth.Config{})
		require.Equal(t, internal, serve(believes, request("x-sender-id", senderID(2), "x-api-key", apiKey(1))))
	})
}

func TestPitfall20OutageIsNever401AndNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := &backend{answer: refuseWith(errOutage)}
		guard, err := senderauth.New(newCache(t, back, senderauth.CacheConfig{}), senderauth.Config{Limits: limits(three)})
		require.NoError(t, err)
		a := &app{}
		h := guard.Wrap(a.hello())
		require.Equal(t, unavailable, serve(h, of(1)))
		back.slow(time.Hour) // and one that does not answer at all
		require.Equal(t, unavailable, serve(h, of(1)))
		synctest.Wait() // until the look-up that failed is over
		back.slow(0)
		back.set(nil)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
	})
}

// There is no list of paths to skip: whatever is behind the guard asks for a
// key, however it is spelled.
func TestPitfall22NoPathGoesAround(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	mux := http.NewServeMux()
	mux.Handle("/healthz", a.hello())
	mux.Handle("/", a.hello())
	h := a.guard.Wrap(mux)
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "POST", "CONNECT", "PRI", "get"} {
		for _, path := range []string{"/healthz", "//healthz", "/healthz/", "/%68ealthz", "/healthz%2f..", "/a/../healthz", "/healthz;a=b", "/healthz?x", "*"} {
			r := request()
			r.Method, r.RequestURI = method, path
			r.URL.Path, _ = url.PathUnescape(path)
			want := noKey
			if method == "HEAD" {
				want = noKey.head()
			}
			require.Equal(t, want, serve(h, r), "%s %s", method, path)
		}
	}
	require.Empty(t, a.served)
}
