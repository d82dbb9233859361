package senderclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

// Many clients of a guard, with limits, deadlines, bodies, redirects and Retry-After
// fields at random, on synctest's clock: the answers take no time, so that every wait is
// the client's. Whatever happens,
//
//   - the key reaches its origin only, and only before a redirect elsewhere;
//   - a request is sent at most MaxAttempts times to an address;
//   - the next attempt comes exactly when the server has said, or later if it is paced,
//     and never more than MaxWait later than it could;
//   - only what may be sent again is;
//   - no request sleeps into its deadline.
func TestPromises(t *testing.T) {
	for seed := range uint64(300) {
		bubble(t, fmt.Sprint("seed ", seed), func(t *testing.T) { newTown(t, seed).run() })
	}
}

// A town is a network with the origin, two other servers, and one client.
type town struct {
	*testing.T
	random      *rand.Rand // under mu
	client      *http.Client
	maxAttempts int
	maxWait     time.Duration
	paced       bool

	mu     sync.Mutex
	visits map[string][]visit // by the number of a request
}

// A visit is what a server sees of an attempt, and what it says.
type visit struct {
	host, path, key, body string
	at                    time.Time
	status                int
	retryAfter            string
	date                  time.Time
}

func newTown(t *testing.T, seed uint64) *town {
	random := rand.New(rand.NewPCG(seed, 1))
	w := &town{
		T: t, random: random, visits: map[string][]visit{},
		maxAttempts: 1 + random.IntN(4),
		maxWait:     time.Duration(1+random.IntN(20)) * time.Second,
		paced:       random.IntN(2) == 0,
	}
	n := newNetwork(t)
	api := guarded(t, senderauth.Limit{Requests: 1 + random.IntN(5), Per: time.Duration(1+random.IntN(10)) * time.Second, Burst: 1 + random.IntN(4)})
	for _, addr := range []string{"api.example.com:443", "api.example.com:80", "evil.example:443"} {
		n.serve(addr, w.recorded(addr, w.moody(api)))
	}
	cfg := senderclient.Config{MaxAttempts: w.maxAttempts, MaxWait: w.maxWait}
	if w.paced {
		cfg.Pace = byDefault
	}
	w.client = n.client(cfg)
	return w
}

// draw returns a random number below n.
func (w *town) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

// recorded records the visits of h.
func (w *town) recorded(host string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v := visit{host: host, path: r.URL.Path, key: strings.Join(r.Header["X-Api-Key"], "+"), body: string(body), at: time.Now()}
		s := &status{rw, 200}
		h.ServeHTTP(s, r)
		v.status, v.retryAfter = s.code, rw.Header().Get("Retry-After")
		v.date, _ = http.ParseTime(rw.Header().Get("Date"))
		id := r.Header.Get("X-Request")
		w.mu.Lock()
		defer w.mu.Unlock()
		w.visits[id] = append(w.visits[id], v)
	})
}

// moody redirects, refuses and lies now and then, instead of h.
func (w *town) moody(h http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch mood := w.draw(20); {
		case mood < 3:
			targets := []string{"https://api.example.com/", "https://evil.example/", "http://api.example.com/"}
			http.Redirect(rw, r, targets[w.draw(3)]+strconv.Itoa(w.draw(1_000_000)), http.StatusTemporaryRedirect)
		case mood < 6:
			says := []string{"", "0", "1", "3", "15", "-4", "99999999999999999999", "soon", time.Now().Add(4 * time.Second).UTC().Format(http.TimeFormat), time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}
			if said := says[w.draw(len(says))]; said != "" {
				rw.Header().Set("Retry-After", said)
			}
			rw.Header().Set("Date", time.Now().UTC().Format(http.TimeFormat))
			rw.Header().Set("RateLimit", `"default";r=0;t=`+strconv.Itoa(w.draw(1_000_000)))
			rw.WriteHeader([]int{429, 503}[w.draw(2)])
		default:
			h.ServeHTTP(rw, r)
		}
	})
}

func (w *town) run() {
	var all sync.WaitGroup
	for worker := range 1 + w.draw(6) {
		all.Go(func() {
			for i := range 1 + w.draw(8) {
				w.call(fmt.Sprintf("%d-%d", worker, i))
				time.Sleep(time.Duration(w.draw(2000)) * time.Millisecond)
			}
		})
	}
	all.Wait()
}

// call sends one request and checks what became of it.
func (w *town) call(id string) {
	method := []string{"GET", "POST", "PUT"}[w.draw(3)]
	r := request(w.T, method, origin, id, "X-Request", id)
	rewinds, idempotent := w.draw(4) > 0, method != "POST"
	if !rewinds {
		r.GetBody = nil
	}
	if method == "POST" && w.draw(2) == 0 {
		idempotent = true
		r.Header.Set("Idempotency-Key", id)
	}
	if w.draw(2) == 0 { // a key of the caller's own must not leak either
		r.Header.Set("x-api-key", apiKey)
	}
	deadline := time.Duration(1+w.draw(30_000)) * time.Millisecond
	ctx, cancel := context.WithTimeout(w.Context(), deadline)
	defer cancel()
	start := time.Now()
	res, err := w.client.Do(r.WithContext(ctx))
	if res != nil {
		res.Body.Close()
	}
	w.mu.Lock()
	visits := w.visits[id]
	w.mu.Unlock()
	w.sentWhereItMay(visits)
	w.sentWhenItMay(visits, rewinds, idempotent)
	w.ended(err, time.Since(start), deadline)
}

// sentWhereItMay fails the test if the key went elsewhere, or not to the origin.
func (w *town) sentWhereItMay(visits []visit) {
	left := false
	for _, v := range visits {
		left = left || v.host != "api.example.com:443"
		want := apiKey
		if left {
			want = ""
		}
		require.Equal(w, want, v.key, "%+v", visits)
	}
}

// sentWhenItMay fails the test if an attempt came too early, too late or too often, or
// another time when it must not.
func (w *town) sentWhenItMay(visits []visit, rewinds, idempotent bool) {
	attempts := 1
	for i := 1; i < len(visits); i++ {
		last, v := visits[i-1], visits[i]
		if last.status == http.StatusTemporaryRedirect {
			attempts = 1
			continue
		}
		attempts++
		require.LessOrEqual(w, attempts, w.maxAttempts)
		require.True(w, rewinds && (last.status == 429 || last.status == 503 && idempotent), "%+v", visits)
		require.Equal(w, last.body, v.body)
		told, err := strconv.Atoi(last.retryAfter)
		wait := time.Duration(told) * time.Second
		if err != nil {
			at, err := http.ParseTime(last.retryAfter)
			require.NoError(w, err)
			wait = at.Sub(last.date)
		}
		wait = max(wait, time.Second)
		require.LessOrEqual(w, wait, w.maxWait)
		if w.paced {
			require.GreaterOrEqual(w, v.at.Sub(last.at), wait, "%+v", visits)
			require.LessOrEqual(w, v.at.Sub(last.at), wait+w.maxWait, "%+v", visits)
		} else {
			require.Equal(w, wait, v.at.Sub(last.at), "%+v", visits)
		}
	}
}

// ended fails the test unless the call ended in time, with an error of the expected kind.
func (w *town) ended(err error, took, deadline time.Duration) {
	require.Less(w, took, deadline, "the call slept into its deadline")
	var limit *senderclient.RateLimitError
	switch {
	case err == nil:
	case errors.As(err, &limit):
		if errors.Is(err, context.DeadlineExceeded) {
			require.GreaterOrEqual(w, limit.Delay, deadline-took, "the wait would have ended in time")
		} else {
			require.True(w, w.paced && limit.Delay > w.maxWait, err)
		}
	default:
		require.ErrorContains(w, err, "stopped after 10 redirects")
	}
}
