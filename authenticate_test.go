package senderauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
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
		"an error with a text":            (*saying)(nil),
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

type saying struct{ text string }

func (s *saying) Error() string { return s.text }

type wrapping struct{ err error }

func (w *wrapping) Error() string { return w.err.Error() }

func (w *wrapping) Unwrap() error { return w.err }

type comparing struct{ err error }

func (c *comparing) Error() string { return c.err.Error() }

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
			if cached { // a guard and a direct caller share the entries
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

// TestSecondLineIsRefused, wherever it is and whatever it says: one
// side would read the first, the other the last.
func TestSecondLineIsRefused(t *testing.T) {
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

// The sender comes from the validator's record: no field of the request changes the
// sender, or the quota that is charged.
func TestSenderComesFromTheRecord(t *testing.T) {
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

func TestOutageIsNever401AndNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		back := &backend{answer: refuseWith(errOutage)}
		guard, err := senderauth.New(newCache(t, back, senderauth.CacheConfig{}), senderauth.Config{Limits: limits(three)})
		require.NoError(t, err)
		a := &app{}
		h := guard.Wrap(a.hello())
		require.Equal(t, unavailable, serve(h, of(1)))
		back.slow(time.Hour) // and one that does not answer at all
		require.Equal(t, unavailable, serve(h, of(1)))
		synctest.Wait() // until the failed lookup is over
		back.slow(0)
		back.set(nil)
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, of(1)))
	})
}

func TestKeyScheme(t *testing.T) {
	cfg := senderauth.Config{KeyHeader: "Authorization", KeyScheme: "Bearer", KeyOnly: true, Realm: "r"}
	refusal := func(detail string) response {
		return refused(401, detail).with("Www-Authenticate", `Bearer realm="r"`)
	}
	for value, want := range map[string]response{
		"Bearer " + apiKey(1):                  hello(1),
		"bearer   " + apiKey(1):                hello(1),
		"BEARER " + strings.ToUpper(apiKey(1)): hello(1),
		"":                                     refusal("Header authorization not found"),
		"Bearer":                               refusal("Invalid API credentials!"),
		"Bearer ":                              refusal("Invalid API credentials!"),
		"Bearer\t" + apiKey(1):                 refusal("Invalid API credentials!"),
		"Bearer" + apiKey(1):                   refusal("Invalid API credentials!"),
		"Basic " + apiKey(1):                   refusal("Invalid API credentials!"),
		" Bearer " + apiKey(1):                 refusal("Invalid API credentials!"),
		apiKey(1):                              refusal("Invalid API credentials!"),
		"Bearer " + apiKey(1) + " x":           refusal("Invalid API credentials!"),
	} {
		bubble(t, value, func(t *testing.T) {
			a := newApp(t, nil, cfg)
			if want.Status == 200 {
				want = want.with(threeLeft(2)...)
			}
			require.Equal(t, want, serve(a, request("Authorization", value)))
		})
	}
}

// checked is a validator with a form of its own.
type checked struct{ senderauth.ValidatorFunc }

func (checked) CheckKey(key string) bool { return strings.HasPrefix(key, "sk_") }

func TestValidatorBringsItsCheckKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		v := checked{func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
			asked = append(asked, c.APIKey)
			return senderauth.Sender{ID: c.SenderID}, nil
		}}
		for _, v := range []senderauth.Validator{v, newCache(t, v, senderauth.CacheConfig{})} {
			guard, err := senderauth.New(v, senderauth.Config{Limits: limits(three)})
			require.NoError(t, err)
			h := guard.Wrap((&app{}).hello())
			require.Equal(t, 200, serve(h, request("x-sender-id", senderID(1), "x-api-key", "sk_Live_1")).Status)
			require.Equal(t, badKey, serve(h, of(1)), "a UUID is not of its form")
		}
		require.Equal(t, []string{"sk_Live_1", "sk_Live_1"}, asked, "as it came")

		guard, err := senderauth.New(v, senderauth.Config{Limits: limits(three), CheckKey: func(key string) bool { return key == "other" }})
		require.NoError(t, err)
		require.Equal(t, badKey, serve(guard.Wrap((&app{}).hello()), request("x-sender-id", senderID(1), "x-api-key", "sk_Live_1")), "Config.CheckKey wins")
	})
}

func TestStaticOfUUIDsAcceptsNoOtherForm(t *testing.T) {
	keys, err := senderauth.Static(pair(1), pair(2))
	require.NoError(t, err)
	var events []senderauth.Event
	guard, err := senderauth.New(keys, senderauth.Config{Limits: limits(three), Observe: observeTo(&events)})
	require.NoError(t, err)
	require.Equal(t, badKey, serve(guard.Wrap((&app{}).hello()), request("x-sender-id", senderID(1), "x-api-key", "sk_live_1")))
	require.ErrorContains(t, events[0].Err, "the key is not a UUID")
}

func TestStaticAcceptsKeysThatAreNoUUIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := senderauth.Credentials{SenderID: senderID(1), APIKey: "sk_live_1"}
		keys, err := senderauth.Static(live, pair(2))
		require.NoError(t, err)
		guard, err := senderauth.New(keys, senderauth.Config{Limits: limits(three)})
		require.NoError(t, err)
		h := guard.Wrap((&app{}).hello())
		require.Equal(t, hello(1).with(threeLeft(2)...), serve(h, request("x-sender-id", senderID(1), "x-api-key", "sk_live_1")))
		require.Equal(t, hello(2).with(threeLeft(2)...), serve(h, request("x-sender-id", senderID(2), "x-api-key", strings.ToUpper(apiKey(2)))))
		require.Equal(t, badKey, serve(h, request("x-sender-id", senderID(1), "x-api-key", "SK_LIVE_1")))
	})
}
