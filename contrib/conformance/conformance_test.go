package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestVectors(t *testing.T) {
	s := load(t)
	for _, v := range s.Vectors {
		t.Run(v.ID, func(t *testing.T) { s.run(t, v, io.Discard) })
	}
}

// A client without an active key must not learn whether a sender exists.
func TestUnknownKeyIsAnsweredAlikeForAnySender(t *testing.T) {
	s := load(t)
	unknown := s.run(t, s.vector("st-unknown-sender-unknown-key"), io.Discard)
	existing := s.run(t, s.vector("st-existing-sender-unknown-key"), io.Discard)
	require.Equal(t, unknown.received.String(), existing.received.String())
}

// run sets up the vector's precondition, sends the vector and checks everything that
// it expects.
//
// It does so in a bubble of testing/synctest. The bubble's clock stands still while a
// listener is open, because a goroutine that waits for the network is not durably
// blocked. Levels of buckets are therefore exact to the nanosecond, and a key that
// expires now has expired, however slow the machine is. Between two servers a sleep
// moves the clock at once. Deadlines of connections use real time; those of HTTP/2 streams do not.
func (s *suite) run(t *testing.T, v *vector, out io.Writer) (x *exchange) {
	t.Helper()
	if v.Config == "store-timeout" || v.Protocol == "h2" && v.Body == unsentBody {
		// These vectors need a timer that fires while the server runs.
		return s.check(t, v, out)
	}
	if v.Protocol == "h2" {
		emptyPools()
		defer emptyPools()
	}
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock starts in 2000, when Unix time had nine digits instead of ten.
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
		start := time.Now()
		x = s.check(t, v, out)
		if len(v.Precondition.Steps)+len(v.Precondition.Limiter) == 0 {
			require.Equal(t, start, time.Now(), "the clock must not move")
		}
		time.Sleep(time.Second) // lets net/http close connections that still wait for a body
	})
	return x
}

// emptyPools empties the pools of net/http. Before Go 1.26 they keep channels of HTTP/2
// connections, which must not get into or out of a bubble.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

func (s *suite) check(t *testing.T, v *vector, out io.Writer) *exchange {
	t.Helper()
	a := newApplication(t, s, v.Config, v.Precondition.StoreExtra, backends{}, out)
	for _, st := range v.Precondition.Steps {
		a.step(t, v, st)
	}
	a.setLevels(t, v.Precondition.Limiter)
	before := a.levels(t)
	a.calls.Store(0)
	a.store.takeLookups()

	sentAt := time.Now()
	x, err := a.send(t, v)
	var wrong []string
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if err != nil {
		report("%v", err)
	}
	v.checkResponse(x, s, sentAt, report)
	a.checkEffects(t, v, x, before, report)
	if len(wrong) > 0 {
		t.Errorf("%s: %s\nsent:\n%s\nreceived:\n%s", v.ID, strings.Join(wrong, "\n\t"), lines(x.sent.String()), lines(x.received.String()))
	}
	return x
}

// lines escapes a message, line by line.
func lines(s string) string {
	var b strings.Builder
	for line := range strings.Lines(s) {
		b.WriteString("\t" + strconv.Quote(line) + "\n")
	}
	return b.String()
}

// send sends the vector to a new server, so that no listener is open between two
// requests. Cache and buckets belong to the application and outlive the server.
func (a *application) send(t *testing.T, v *vector) (x *exchange, err error) {
	a.serve(t, func(addr string) { x, err = v.exchange(addr) })
	return x, err
}

func (a *application) step(t *testing.T, v *vector, st step) {
	switch {
	case st.Send != "":
		sent := v
		if st.Send != "self" {
			sent = a.suite.vector(st.Send)
		}
		x, err := a.send(t, sent)
		require.NoError(t, err)
		require.Equal(t, st.Status, x.status, "the step %+v", st)
	case st.Key != "":
		a.store.put(t, a.suite, st.Key, st.State)
	case st.Forget != "":
		a.cache.Forget(a.suite.Senders[st.Forget].ID)
	case st.Store == "ok", st.Store == "error":
		a.store.set(st.Store)
	case st.Wait == "ttl":
		time.Sleep(cacheTTL)
	case st.Wait == "expiry":
		key := presented(v.wire(), "x-api-key")
		a.store.mu.Lock()
		r := a.store.keys[key]
		a.store.mu.Unlock()
		require.False(t, r.until.IsZero(), "the key of %s does not expire", v.ID)
		time.Sleep(time.Until(r.until))
	default:
		t.Fatalf("unknown step %+v", st)
	}
}

// setLevels brings buckets to their levels. It takes whole tokens and then waits for
// the fraction, starting with the buckets that need the longest wait.
func (a *application) setLevels(t *testing.T, levels []level) {
	type due struct {
		level
		limit senderauth.Limit
		cost  int
		wait  time.Duration
	}
	var all []due
	for _, l := range levels {
		p, ok := a.suite.Policies[l.Policy]
		require.True(t, ok, "unknown policy %q", l.Policy)
		if p.limit == senderauth.Blocked() {
			require.Zero(t, l.Tokens)
			continue
		}
		whole := math.Floor(l.Tokens)
		wait := (l.Tokens - whole) * float64(p.limit.Per) / float64(p.limit.Requests)
		all = append(all, due{l, p.limit, p.limit.Burst - int(whole), time.Duration(math.Round(wait))})
	}
	slices.SortStableFunc(all, func(a, b due) int { return int(b.wait - a.wait) })
	for i, d := range all {
		b, err := a.limiter.Take(t.Context(), a.suite.Senders[d.Sender].ID, []senderauth.Charge{{Name: d.Policy, Limit: d.limit, Cost: d.cost}})
		require.NoError(t, err)
		require.False(t, b[0].Refused)
		next := time.Duration(0)
		if i+1 < len(all) {
			next = all[i+1].wait
		}
		time.Sleep(d.wait - next)
	}
	for _, d := range all {
		require.InDelta(t, d.Tokens, a.level(t, a.suite.Senders[d.Sender].ID, d.Policy), 1e-6)
	}
}

// level returns the number of tokens in a bucket, with its fraction.
func (a *application) level(t *testing.T, senderID, policy string) float64 {
	l := a.suite.Policies[policy].limit
	b, err := a.limiter.Take(t.Context(), senderID, []senderauth.Charge{{Name: policy, Limit: l}})
	require.NoError(t, err)
	if l == senderauth.Blocked() || l == senderauth.Unlimited() {
		return float64(b[0].Remaining)
	}
	return float64(l.Burst) - b[0].ResetAfter.Seconds()*float64(l.Requests)/l.Per.Seconds()
}

type bucket struct{ sender, policy string }

// levels returns the level of every bucket of every sender in the suite.
func (a *application) levels(t *testing.T) map[bucket]float64 {
	all := map[bucket]float64{}
	for _, sender := range a.suite.Senders {
		for policy := range a.suite.Policies {
			all[bucket{sender.ID, policy}] = a.level(t, sender.ID, policy)
		}
	}
	return all
}

// checkEffects checks what the request did: calls of the handler, lookups, and tokens
// taken from each bucket.
func (a *application) checkEffects(t *testing.T, v *vector, x *exchange, before map[bucket]float64, report func(string, ...any)) {
	if called := a.calls.Load() > 0; called != v.Expect.HandlerCalled {
		report("handler called: %v, want %v", called, v.Expect.HandlerCalled)
	}
	if n := a.calls.Load(); n > 1 {
		report("the handler was called %d times", n)
	}
	if n := a.store.takeLookups(); n > 0 && v.decidedByForm() {
		report("%d lookups for a request that needs none", n)
	}

	// One bucket is charged, and in the configuration two-policies daily as well.
	want := map[bucket]float64{}
	if n := v.Expect.QuotaConsumed; n > 0 {
		sender := strings.ToLower(presented(x.sent.String(), "x-sender-id"))
		buckets := []bucket{{sender, v.Expect.Policy}}
		if v.Config == "two-policies" {
			buckets = append(buckets, bucket{sender, "daily"})
		}
		for _, b := range buckets {
			want[b] = float64(n) / float64(len(buckets))
		}
		if _, ok := before[buckets[0]]; !ok {
			report("there is no bucket %v", buckets[0])
		}
	}
	after := a.levels(t)
	for _, b := range slices.SortedFunc(maps.Keys(before), func(x, y bucket) int { return strings.Compare(x.sender+x.policy, y.sender+y.policy) }) {
		if took := before[b] - after[b]; math.Abs(took-want[b]) > 1e-6 {
			report("%.6f tokens taken from %q of %s, want %v", took, b.policy, b.sender, want[b])
		}
	}
	if len(want) == 0 && len(v.Precondition.Limiter)+len(v.Precondition.Steps) == 0 {
		if n := a.limiter.Len(); n != 0 {
			report("%d senders have a bucket, want none", n)
		}
	}
}

// presented returns the value of the first field with this name in a message, without
// surrounding space.
func presented(message, name string) string {
	m := regexp.MustCompile(`(?im)^` + name + `:[ \t]*([^\r\n]*)`).FindStringSubmatch(message)
	if m == nil {
		return ""
	}
	return strings.TrimRight(m[1], " \t")
}

// decidedByForm reports whether the request is refused without a lookup.
func (v *vector) decidedByForm() bool {
	e := &v.Expect
	switch {
	case v.Precondition.CheckResponse > 1:
		return false // an earlier request on the connection may cause a lookup
	case e.Layer == "net/http", e.Status == http.StatusForbidden:
		return true
	case e.Status != http.StatusUnauthorized || e.Detail == nil:
		return false
	case strings.HasPrefix(*e.Detail, "Header "), v.Group == "sender-syntax", v.Group == "duplicates":
		return true
	}
	key := presented(v.wire(), "x-api-key")
	return !uuidForm.MatchString(key) || uuidNilOrMax.MatchString(key)
}

var (
	uuidForm     = regexp.MustCompile(`(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	uuidNilOrMax = regexp.MustCompile(`(?i)^(0[0-]*|f[f-]*)$`)
)

func (v *vector) checkResponse(x *exchange, s *suite, now time.Time, report func(string, ...any)) {
	e := &v.Expect
	want := e.Status
	if want == http.StatusTemporaryRedirect && strings.HasPrefix(runtime.Version(), "go1.25") {
		want = http.StatusMovedPermanently // what ServeMux sent before Go 1.26
	}
	if x.status != want {
		report("status %d, want %d", x.status, want)
	}
	reset := ""
	if e.Status == 0 {
		reset = "PROTOCOL_ERROR"
	}
	if x.reset != reset {
		report("RST_STREAM %q, want %q", x.reset, reset)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers.Present)) {
		pattern := e.Headers.Present[name]
		values := x.header.Values(name)
		if len(values) != 1 {
			report("%s: %d lines %q, want one", name, len(values), values)
		} else if !regexp.MustCompile(pattern).MatchString(values[0]) {
			report("%s: %q does not match %s", name, values[0], pattern)
		}
	}
	for _, name := range e.Headers.Absent {
		if values := x.header.Values(name); len(values) > 0 {
			report("%s: %q, want none", name, values)
		}
	}
	v.checkBody(x, report)
	if e.ResetInS != nil {
		at, err := strconv.ParseInt(x.header.Get("X-RateLimit-Reset"), 10, 64)
		in := time.Unix(at, 0).Sub(now).Seconds() - *e.ResetInS
		if err != nil || in < -1 || in > 2 {
			report("X-RateLimit-Reset is %.3f s from what is expected, want -1..+2 (%v)", in, err)
		}
	}
	s.checkPolicies(x, report)
}

func (v *vector) checkBody(x *exchange, report func(string, ...any)) {
	e := &v.Expect
	if length := x.header.Get("Content-Length"); v.Method == http.MethodHead && v.RawRequest == "" {
		if len(x.body) > 0 {
			report("the response to HEAD has a body of %d bytes", len(x.body))
		}
		return
	} else if length != "" && length != strconv.Itoa(len(x.body)) {
		report("Content-Length is %s for a body of %d bytes", length, len(x.body))
	}
	if e.ProblemJSON {
		// The members must be in this order.
		p := struct {
			Status int     `json:"status"`
			Title  string  `json:"title"`
			Detail *string `json:"detail"`
			Type   string  `json:"type"`
		}{}
		if err := json.Unmarshal(x.body, &p); err != nil {
			report("%v", err)
			return
		}
		if again, _ := json.Marshal(p); string(again) != string(x.body) {
			report("the problem is %s, want members as in %s", x.body, again)
		}
		if p.Status != e.Status || p.Title != http.StatusText(e.Status) || p.Type != "about:blank" || p.Detail == nil {
			report("the problem is %s", x.body)
		} else if e.Detail != nil && *p.Detail != *e.Detail {
			report("detail %q, want %q", *p.Detail, *e.Detail)
		}
		if ct := x.header.Values("Content-Type"); len(ct) != 1 || ct[0] != "application/problem+json" {
			report("Content-Type %q", ct)
		}
	} else if e.Detail != nil {
		report("the vector expects a detail but no problem_json")
	}
	if len(e.JSON) > 0 {
		var got map[string]any
		if err := json.Unmarshal(x.body, &got); err != nil {
			report("%v", err)
		}
		for name, want := range e.JSON {
			if got[name] != want {
				report("member %s is %v, want %v", name, got[name], want)
			}
		}
	}
}

// checkPolicies compares RateLimit-Policy, if the response has it, with the parameters
// that the suite expects for each policy.
func (s *suite) checkPolicies(x *exchange, report func(string, ...any)) {
	lines := x.header.Values("RateLimit-Policy")
	if len(lines) == 0 {
		return
	}
	list, err := httpsfv.UnmarshalList(lines)
	if err != nil {
		report("RateLimit-Policy: %v", err)
		return
	}
	for _, m := range list {
		item, ok := m.(httpsfv.Item)
		name, _ := item.Value.(string)
		p, known := s.Policies[name]
		if !ok || !known {
			report("RateLimit-Policy: %v is not a policy", m)
			continue
		}
		var params []string
		for _, k := range item.Params.Names() {
			value, _ := item.Params.Get(k)
			params = append(params, fmt.Sprintf("%s=%v", k, value))
		}
		if got := strings.Join(params, ";"); p.advertise != "" && got != p.advertise {
			report("RateLimit-Policy of %s: %s, want %s", name, got, p.advertise)
		}
	}
}
