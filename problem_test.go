package senderauth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

type noJSON struct{}

func (noJSON) MarshalJSON() ([]byte, error) { return nil, errors.New("no") }

func TestProblem(t *testing.T) {
	// answer returns a whole response with this body.
	answer := func(status int, body string, fields ...string) response {
		return response{status, map[string]string{
			"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
		}, body}.with(fields...)
	}
	for _, c := range []struct {
		name string
		p    senderauth.Problem
		want response
		text string
	}{
		{"zero", senderauth.Problem{}, answer(500, `{"status":500,"title":"Internal Server Error","detail":"","type":"about:blank"}`), "senderauth: 500 Internal Server Error"},
		{"no error status", senderauth.Problem{Status: 200, Detail: "d"}, answer(500, `{"status":500,"title":"Internal Server Error","detail":"d","type":"about:blank"}`), "senderauth: 500 Internal Server Error: d"},
		{"no status at all", senderauth.Problem{Status: 600}, answer(500, `{"status":500,"title":"Internal Server Error","detail":"","type":"about:blank"}`), "senderauth: 500 Internal Server Error"},
		{"the lowest status", senderauth.Problem{Status: 400}, answer(400, `{"status":400,"title":"Bad Request","detail":"","type":"about:blank"}`), "senderauth: 400 Bad Request"},
		{"the highest status", senderauth.Problem{Status: 599}, answer(599, `{"status":599,"title":"","detail":"","type":"about:blank"}`), "senderauth: 599 "},
		{"a status without a phrase", senderauth.Problem{Status: 499, Detail: "d"}, answer(499, `{"status":499,"title":"","detail":"d","type":"about:blank"}`), "senderauth: 499 : d"},
		{"401", senderauth.Problem{Status: 401, Detail: "d"}, answer(401, `{"status":401,"title":"Unauthorized","detail":"d","type":"about:blank"}`, "Www-Authenticate", `ApiKey realm="api"`), "senderauth: 401 Unauthorized: d"},
		{"401 with a challenge", senderauth.Problem{Status: 401, Detail: "d", Challenge: "Own"}, answer(401, `{"status":401,"title":"Unauthorized","detail":"d","type":"about:blank"}`, "Www-Authenticate", "Own"), "senderauth: 401 Unauthorized: d"},
		{"a challenge goes with 401 alone", senderauth.Problem{Status: 403, Challenge: "Own"}, answer(403, `{"status":403,"title":"Forbidden","detail":"","type":"about:blank"}`), "senderauth: 403 Forbidden"},
		{"everything", senderauth.Problem{
			Status: 403, Title: "No credit", Detail: "30 < 50 & 0", Type: "https://example.com/probs/credit", Instance: "/account/7",
			RetryAfter: 1001 * time.Millisecond, Err: errors.New("cause"),
			Extensions: map[string]any{
				"balance": 30, "accounts": []string{"/a", "/b"}, "Type": "its own", "a\"b": nil,
				"status": 1, "title": 1, "detail": 1, "type": 1, "instance": 1, // RFC 9457's
				"chan": make(chan int), "func": func() {}, "nan": math.NaN(), "fails": noJSON{},
			},
		}, answer(403, `{"status":403,"title":"No credit","detail":"30 < 50 & 0","type":"https://example.com/probs/credit","instance":"/account/7","Type":"its own","a\"b":null,"accounts":["/a","/b"],"balance":30}`,
			"Retry-After", "2"), "senderauth: 403 No credit: 30 < 50 & 0: cause"},
		{"retry in a nanosecond", senderauth.Problem{Status: 503, RetryAfter: 1}, answer(503, `{"status":503,"title":"Service Unavailable","detail":"","type":"about:blank"}`, "Retry-After", "1"), "senderauth: 503 Service Unavailable"},
		{"retry in whole seconds", senderauth.Problem{Status: 503, RetryAfter: 2 * time.Second}, answer(503, `{"status":503,"title":"Service Unavailable","detail":"","type":"about:blank"}`, "Retry-After", "2"), "senderauth: 503 Service Unavailable"},
		{"retry never", senderauth.Problem{Status: 503, RetryAfter: -1}, answer(503, `{"status":503,"title":"Service Unavailable","detail":"","type":"about:blank"}`), "senderauth: 503 Service Unavailable"},
		{"retry in 292 years", senderauth.Problem{Status: 503, RetryAfter: math.MaxInt64}, answer(503, `{"status":503,"title":"Service Unavailable","detail":"","type":"about:blank"}`, "Retry-After", "9223372037"), "senderauth: 503 Service Unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want, serve(&c.p, request()))
			head := request()
			head.Method = http.MethodHead
			require.Equal(t, c.want.head(), serve(&c.p, head))
			require.EqualError(t, &c.p, c.text)
			require.Equal(t, c.p.Err, errors.Unwrap(&c.p))
		})
	}
}

// Fields that an outer layer set for another body are deleted. Its other fields
// stay.
func TestProblemDeletesFieldsOfAnotherBody(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{
			"ETag", "Last-Modified", "Accept-Ranges", "Content-Range", "Content-Language", "Content-Location",
			"Content-Disposition", "Content-Length", "Expires", "Trailer", "Transfer-Encoding", "Retry-After", "WWW-Authenticate", "Cache-Control", "Content-Type",
			"X-Content-Type-Options",
		} {
			for _, spelled := range []string{http.CanonicalHeaderKey(name), name, strings.ToLower(name), strings.ToUpper(name)} {
				w.Header()[spelled] = []string{"outer", "outer"}
			}
		}
		w.Header().Set("X-Request-Id", "7")
		w.Header().Set("Access-Control-Allow-Origin", "*")
		(&senderauth.Problem{Status: 403, Detail: "d"}).ServeHTTP(w, r)
	})
	require.Equal(t, refused(403, "d").with("X-Request-Id", "7", "Access-Control-Allow-Origin", "*"), serve(h, request()))
}

// An outer layer that adds to one field does not overwrite the next one in the
// shared array.
func TestAddingToAProblemFieldLeavesTheOthers(t *testing.T) {
	p := &senderauth.Problem{Status: 401, RetryAfter: 1}
	want := serve(p, request())
	require.Len(t, want.Header, 5)
	for name, value := range want.Header {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(adds{w, name}, r) })
		require.Equal(t, want.with(name, value+"\nmore"), serve(h, request()))
	}
}

// adds is an outer layer that adds to a field before it is sent.
type adds struct {
	http.ResponseWriter
	name string
}

func (a adds) WriteHeader(status int) {
	a.Header().Add(a.name, "more")
	a.ResponseWriter.WriteHeader(status)
}

func TestProblemDoesNotEchoTheRequest(t *testing.T) {
	a := newApp(t, nil, senderauth.Config{})
	r := request("x-sender-id", "<marker>", "x-api-key", "marker", "Accept", "text/marker", "Origin", "https://marker", "X-Request-Id", "marker")
	r.URL.Path, r.Host = "/marker", "marker"
	require.NotContains(t, fmt.Sprint(serve(a, r)), "marker")
}

func FuzzProblemJSON(f *testing.F) {
	f.Add(403, "t", "d", "about:blank", "/i", "name", "value")
	f.Add(401, "", "", "", "", "status", "\x00\xff\u2028<>&\"\\")
	f.Add(-1, "\xf0\x28", "é\u0301", "javascript:alert(1)", "\n", "\xff", "")
	f.Fuzz(func(t *testing.T, status int, title, detail, kind, instance, name, value string) {
		p := &senderauth.Problem{Status: status, Title: title, Detail: detail, Type: kind, Instance: instance, Extensions: map[string]any{name: value}}
		got := serve(p, request())
		if status < 400 || status > 599 {
			status = 500
		}
		require.Equal(t, status, got.Status)

		type member struct {
			name  string
			value any
		}
		want := []member{{"status", float64(status)}, {"title", title}, {"detail", detail}, {"type", kind}, {"instance", instance}, {name, value}}
		if title == "" {
			want[1].value = http.StatusText(status)
		}
		if kind == "" {
			want[3].value = "about:blank"
		}
		switch name {
		case "status", "title", "detail", "type", "instance":
			want = want[:5]
		}
		if instance == "" {
			want = append(want[:4], want[5:]...)
		}
		for i := range want {
			want[i].name = asJSON(want[i].name)
			if s, ok := want[i].value.(string); ok {
				want[i].value = asJSON(s)
			}
		}
		var members []member
		d := json.NewDecoder(strings.NewReader(got.Body))
		token := func() json.Token {
			tok, err := d.Token()
			require.NoError(t, err, "%q", got.Body)
			return tok
		}
		require.Equal(t, json.Delim('{'), token())
		for d.More() {
			members = append(members, member{token().(string), token()})
		}
		require.Equal(t, json.Delim('}'), token())
		require.False(t, d.More())
		require.Equal(t, want, members)
	})
}

// asJSON returns s as a reader of JSON sees it. s need not be UTF-8.
func asJSON(s string) string {
	b, _ := json.Marshal(s)
	var out string
	json.Unmarshal(b, &out)
	return out
}
