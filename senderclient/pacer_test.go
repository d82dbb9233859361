package senderclient_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
	"github.com/stretchr/testify/require"
)

func byDefault(*http.Request) []string { return []string{"default"} }

// half is a limit of two requests a second, four at once.
var half = senderauth.Limit{Requests: 120, Per: time.Minute, Burst: 4}

// counted serves h and counts its answers by status.
func counted(h http.Handler) (http.Handler, func() map[int]int) {
	var mu sync.Mutex
	counts := map[int]int{}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s := &status{w, 200}
			h.ServeHTTP(s, r)
			mu.Lock()
			defer mu.Unlock()
			counts[s.code]++
		}), func() map[int]int {
			mu.Lock()
			defer mu.Unlock()
			return counts
		}
}

// slow serves h and keeps the answer back for a second.
func slow(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		time.Sleep(time.Second) // the answer is in the writer's buffer
	})
}

type status struct {
	http.ResponseWriter
	code int
}

func (s *status) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (s *status) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// One after the other, a hundred requests take as long as the limit asks for, and none
// of them is refused.
func TestPacedClientIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		h, counts := counted(guarded(t, half))
		n.serve("api.example.com:443", h)
		client := n.client(senderclient.Config{Pace: byDefault})
		start := time.Now()
		for range 100 {
			status, _ := send(t, client, request(t, "POST", origin, "text"))
			require.Equal(t, 200, status)
		}
		require.Equal(t, map[int]int{200: 100}, counts())
		require.GreaterOrEqual(t, time.Since(start), 48*time.Second)
		require.LessOrEqual(t, time.Since(start), 50*time.Second, "the fields count whole seconds")
	})
}

// Once the limit is known, requests that are sent at once wait for their turn.
func TestPacedRequestsAtOnceTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		h, counts := counted(guarded(t, half))
		n.serve("api.example.com:443", h)
		client := n.client(senderclient.Config{Pace: byDefault})
		send(t, client, request(t, "GET", origin, ""))
		start := time.Now()
		var all sync.WaitGroup
		for range 40 {
			all.Go(func() {
				status, _ := send(t, client, request(t, "GET", origin, ""))
				if status != 200 {
					t.Error(status)
				}
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 41}, counts())
		require.LessOrEqual(t, time.Since(start), 21*time.Second)
	})
}

// A request that would wait for too long is not sent, and takes no turn.
func TestPacedRequestIsNotSentTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		h, counts := counted(guarded(t, senderauth.Limit{Requests: 1, Per: 20 * time.Second, Burst: 1}))
		n.serve("api.example.com:443", h)
		client := n.client(senderclient.Config{Pace: byDefault, MaxWait: 30 * time.Second})
		send(t, client, request(t, "GET", origin, ""))
		start := time.Now()

		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			body := &closer{}
			r := request(t, "POST", origin, "").WithContext(ctx)
			r.Body = body
			_, err := client.Do(r)
			cancel()
			require.EqualError(t, err, `Post "https://api.example.com": senderclient: rate limit exceeded, retry after 20s, past the deadline of the request`)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, 1, body.closed)
		}
		require.Zero(t, time.Since(start))

		var first sync.WaitGroup
		first.Go(func() { send(t, client, request(t, "GET", origin, "")) })
		synctest.Wait()
		_, err := client.Do(request(t, "GET", origin, ""))
		require.EqualError(t, err, `Get "https://api.example.com": senderclient: rate limit exceeded, retry after 40s`)
		var limit *senderclient.RateLimitError
		require.ErrorAs(t, err, &limit)
		require.Equal(t, 40*time.Second, limit.Delay)
		require.Nil(t, limit.Problem)
		require.NotErrorIs(t, err, context.DeadlineExceeded)
		first.Wait()
		require.Equal(t, 20*time.Second, time.Since(start))
		require.Equal(t, map[int]int{200: 2}, counts())
	})
}

// A request that is cancelled while it waits gives its turn back.
func TestCancelledRequestGivesItsTurnBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		n.serve("api.example.com:443", guarded(t, senderauth.Limit{Requests: 1, Per: 20 * time.Second, Burst: 1}))
		var away error
		client := n.client(senderclient.Config{
			Credentials: func(context.Context) (string, string, error) { return senderID, apiKey, away },
			Pace:        byDefault,
		})
		send(t, client, request(t, "GET", origin, ""))
		start := time.Now()
		for range 5 {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			_, err := client.Do(request(t, "GET", origin, "").WithContext(ctx))
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Equal(t, 5*time.Second, time.Since(start))
		time.Sleep(15 * time.Second)
		away = errors.New("the vault is away")
		for range 5 {
			_, err := client.Do(request(t, "GET", origin, ""))
			require.ErrorIs(t, err, away)
		}
		away = nil
		require.Equal(t, 20*time.Second, time.Since(start))
		for i := range 3 { // the first of them has its token
			send(t, client, request(t, "GET", origin, ""))
			require.Equal(t, time.Duration(20*(i+1))*time.Second, time.Since(start))
		}
	})
}

// A request whose answer is on its way is not forgotten: the server may count it later
// than the answer that came last.
func TestRequestsInFlightAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		h, counts := counted(slow(guarded(t, senderauth.Limit{Requests: 1, Per: 10 * time.Second, Burst: 4})))
		n.serve("api.example.com:443", h)
		client := n.client(senderclient.Config{Pace: byDefault})
		send(t, client, request(t, "GET", origin, ""))
		var all sync.WaitGroup
		for _, after := range []time.Duration{0, 500, 1100, 1200} {
			all.Go(func() {
				time.Sleep(after * time.Millisecond)
				send(t, client, request(t, "GET", origin, ""))
			})
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 5}, counts())
	})
}

// An idle client saves up no more than the burst.
func TestPacedClientSavesNoMoreThanTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		h, counts := counted(slow(guarded(t, half)))
		n.serve("api.example.com:443", h)
		client := n.client(senderclient.Config{Pace: byDefault})
		send(t, client, request(t, "GET", origin, ""))
		time.Sleep(time.Hour)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { send(t, client, request(t, "GET", origin, "")) })
		}
		all.Wait()
		require.Equal(t, map[int]int{200: 21}, counts())
	})
}

// Requests of other limits do not wait, and a request of several waits for all of them.
func TestPaceNamesTheLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("RateLimit", `"default";r=0;t=2, "messages";r=0;t=5`)
			w.Header().Set("RateLimit-Policy", `"default";q=5;w=10, "messages";q=5;w=25`)
		})
		client := n.client(senderclient.Config{Pace: func(r *http.Request) []string {
			return map[string][]string{"/": {"default", "messages"}, "/messages": {"messages"}, "/default": {"default"}, "/free": nil}[r.URL.Path]
		}})
		for _, path := range []string{"/", "/free", "/default", "/messages", "/"} {
			send(t, client, request(t, "GET", origin+path, ""))
		}
		require.Equal(t, []time.Duration{0, 0, 2 * time.Second, 5 * time.Second, 10 * time.Second}, a.times)
	})
}

// A server that lies cannot keep a client back for longer than MaxWait, nor make it send
// more than its caller asks for.
func TestServerThatLies(t *testing.T) {
	for name, c := range map[string]struct {
		state, policy string
		wait          time.Duration // before the second request
	}{
		"no fields":                        {"", "", 0},
		"empty, and no time":               {`"default";r=0`, `"default";q=1;w=9`, 0},
		"another limit":                    {`"messages";r=0;t=9`, `"messages";q=1;w=9`, 0},
		"empty for ever":                   {`"default";r=0`, `"default";q=0`, 0},
		"empty for a billion years":        {`"default";r=0;t=999999999999999`, "", 10 * time.Second},
		"a slow refill":                    {`"default";r=0;t=999999999999999`, `"default";q=1;w=999999999999999`, 10 * time.Second},
		"a fast refill":                    {`"default";r=0;t=3`, `"default";q=999999999999999;w=1`, 3 * time.Second},
		"more than the burst":              {`"default";r=999999999999999`, `"default";q=1;w=1`, 0},
		"a negative rest":                  {`"default";r=-999999999999999;t=1`, `"default";q=1;w=1`, 0},
		"a negative time":                  {`"default";r=0;t=-5`, `"default";q=1;w=1`, 0},
		"a negative policy":                {`"default";r=0;t=5`, `"default";q=-1;w=-1`, 5 * time.Second},
		"a zero policy":                    {`"default";r=0;t=5`, `"default";q=0;w=0`, 5 * time.Second},
		"no rest":                          {`"default";t=5`, `"default";q=1;w=1`, 0},
		"a token now":                      {`"default";r=0;t=0`, `"default";q=1;w=9`, 0},
		"no list":                          {`"default";r=0;t=5,`, `"default";q=1;w=9`, 0},
		"the older fields":                 {`limit=1, remaining=0, reset=9`, "1;w=9", 0},
		"a text":                           {`"default";r="0";t="5"`, "", 0},
		"a rest that the policy withholds": {`"default";r=0;t=5`, "nonsense", 5 * time.Second},
	} {
		bubble(t, name, func(t *testing.T) {
			n := newNetwork(t)
			a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, _ int) {
				w.Header().Set("RateLimit", c.state)
				w.Header().Set("RateLimit-Policy", c.policy)
			})
			client := n.client(senderclient.Config{Pace: byDefault, MaxWait: 10 * time.Second})
			for range 3 {
				status, _ := send(t, client, request(t, "GET", origin, ""))
				require.Equal(t, 200, status)
			}
			require.Equal(t, []time.Duration{0, c.wait, 2 * c.wait}, a.times)
		})
	}
}

// The same holds for requests at once: the third waits for what the server says.
func TestServerThatLiesToRequestsAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		state, policy string
		wait          time.Duration // of the last one
	}{
		"a slow refill":       {`"default";r=1`, `"default";q=1;w=999999999999999`, 10 * time.Second},
		"more than the burst": {`"default";r=999999999999999`, `"default";q=1;w=5`, 5 * time.Second},
	} {
		bubble(t, name, func(t *testing.T) {
			n := newNetwork(t)
			a := newAPI(n, func(w http.ResponseWriter, _ *http.Request, i int) {
				if i == 0 {
					w.Header().Set("RateLimit", c.state)
					w.Header().Set("RateLimit-Policy", c.policy)
				}
			})
			client := n.client(senderclient.Config{Pace: byDefault, MaxWait: 10 * time.Second})
			send(t, client, request(t, "GET", origin, ""))
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { send(t, client, request(t, "GET", origin, "")) })
			}
			both.Wait()
			require.Equal(t, []time.Duration{0, 0, c.wait}, a.times)
		})
	}
}
