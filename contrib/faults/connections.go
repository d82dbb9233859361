package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/senderauth/senderauth"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

var connectionScenarios = []scenario{
	{id: "F-70", name: "strangers that announce a body and send none", run: bodiesNeverCome},
	{id: "F-71", name: "strangers that expect 100 and announce 1 GB", run: bodiesAreAnnounced},
	{id: "F-72", name: "rapid resets over HTTP/2", run: streamsAreReset},
}

// A refusal is what a connection got: the first line, and when it and the end came.
type refusal struct {
	line            string
	answered, ended time.Duration
	err             error
}

// strangers send a head without a key on n connections at once, and read until the server
// closes them.
func (e *env) strangers(n int, to *instance, head string) []refusal {
	refusals := make([]refusal, n)
	var all sync.WaitGroup
	for i := range refusals {
		all.Go(func() { refusals[i] = stranger(strings.TrimPrefix(to.url, "http://"), head) })
	}
	all.Wait()
	return refusals
}

func stranger(addr, head string) (r refusal) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return refusal{err: err}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience + 10*time.Second))
	begun := time.Now()
	if _, r.err = io.WriteString(c, head); r.err != nil {
		return r
	}
	in := bufio.NewReader(c)
	r.line, r.err = in.ReadString('\n')
	r.answered = time.Since(begun)
	if r.err == nil {
		_, r.err = io.Copy(io.Discard, in)
	}
	r.ended = time.Since(begun)
	return r
}

// judgeRefusals judges that all connections got a 401 and were then closed, in time.
func (e *env) judgeRefusals(refusals []refusal, answered, ended time.Duration) {
	var answers, ends []answer
	for _, r := range refusals {
		a := answer{request: request{kind: "stranger"}, took: r.answered, err: r.err}
		fmt.Sscanf(r.line, "HTTP/1.1 %d", &a.status)
		answers = append(answers, a)
		ends = append(ends, answer{took: r.ended})
	}
	e.judge(answers, func(a answer) string {
		if a.err != nil {
			return "the connection broke"
		}
		return wants(401)(a)
	})
	e.within(answered, slowest(answers), "slowest 401")
	e.within(ended, slowest(ends), "slowest end of a connection")
	e.lose("the connections, within %v", slowest(ends).Round(time.Millisecond))
}

// The 401 does not wait for a body that never comes, and the connection is closed soon.
func bodiesNeverCome(e *env) {
	n := pick(e, 100, 1000)
	i := e.start(config{Validator: &keyring{}})
	e.held("%d connections at once", n)
	refusals := e.strangers(n, i, "POST / HTTP/1.1\r\nHost: api\r\nContent-Length: 1000\r\n\r\n")
	e.injected(n, "%d bodies of 1,000 bytes that never come", n)
	e.judgeRefusals(refusals, time.Second, 2*time.Second)
}

// A client that waits for 100 Continue gets the 401 instead.
func bodiesAreAnnounced(e *env) {
	n := pick(e, 100, 1000)
	i := e.start(config{Validator: &keyring{}})
	e.held("%d connections, ten at once", n)
	var refusals []refusal
	for range n / 10 {
		refusals = append(refusals, e.strangers(10, i, "POST / HTTP/1.1\r\nHost: api\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n")...)
	}
	e.injected(n, "%d bodies of 1 GB announced", n)
	e.judgeRefusals(refusals, 100*time.Millisecond, 2*time.Second)
}

// Clients open streams with unknown keys and reset them at once. While the validator
// answers, they cost little memory. While it hangs, no lookup outlives its timeout, and
// none are left.
func streamsAreReset(e *env) {
	const timeout = 300 * time.Millisecond
	var hangs atomic.Bool
	var inFlight atomic.Int64
	var mu sync.Mutex
	var lookups []answer
	keys := &keyring{fault: func(ctx context.Context, _ senderauth.Credentials) error {
		if !hangs.Load() {
			return nil
		}
		inFlight.Add(1)
		defer inFlight.Add(-1)
		begun := time.Now()
		<-ctx.Done()
		mu.Lock()
		defer mu.Unlock()
		lookups = append(lookups, answer{took: time.Since(begun)})
		return ctx.Err()
	}}
	i := e.start(config{Validator: keys, Timeout: timeout})
	n := pick(e, 2000, 10_000)
	e.held("%d streams without a pause, twice", n)
	flood := func() (reset, connections int, grown int64) {
		memory := measureMemory()
		for reset < n {
			processed, err := resetStreams(strings.TrimPrefix(i.url, "http://"), n-reset)
			e.check(err)
			reset += processed
			connections++
		}
		e.until("no lookup is in flight", func() bool { return i.cache.Stats().InFlight == 0 })
		return reset, connections, memory.stop()
	}
	reset, connections, grown := flood()
	e.injected(reset, "%d streams reset at once, on %d connections", reset, connections)
	e.want(grown <= 16<<20, "%d KiB more memory, more than 16 MiB", grown>>10)

	hangs.Store(true)
	reset, connections, grown = flood()
	e.injected(len(lookups), "%d on %d connections while %d lookups hung", reset, connections, len(lookups))
	e.within(timeout+100*time.Millisecond, slowest(lookups), "slowest lookup")
	e.want(inFlight.Load() == 0, "%d lookups left", inFlight.Load())
	e.want(i.served.Load() == 0 && i.charged.Load() == 0, "%d were charged and %d served", i.charged.Load(), i.served.Load())
	e.lose("while lookups hung, %d KiB of memory for each stream", grown>>10/int64(reset))
}

// resetStreams opens up to n streams on a connection and resets each of them at once. It
// returns how many the server processed before it had enough.
func resetStreams(addr string, n int) (done int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	out := bufio.NewWriter(c)
	framer := http2.NewFramer(out, c)
	processed := make(chan int, 1)
	go func() { processed <- processedStreams(framer, n) }()
	if _, err := out.WriteString(http2.ClientPreface); err != nil {
		return 0, err
	}
	if err := framer.WriteSettings(); err != nil {
		return 0, err
	}
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for stream := range n {
		block.Reset()
		key := random(stream)
		for _, f := range [][2]string{
			{":method", http.MethodGet}, {":scheme", "http"}, {":authority", "api"}, {":path", "/"},
			{"x-sender-id", key.SenderID}, {"x-api-key", key.APIKey},
		} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		id := uint32(2*stream + 1)
		err := errors.Join(
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}),
			framer.WriteRSTStream(id, http2.ErrCodeCancel),
		)
		if err != nil {
			break // the server has closed the connection
		}
	}
	if errors.Join(framer.WritePing(false, [8]byte{}), out.Flush()) != nil {
		c.Close()
	}
	return <-processed, nil
}

// processedStreams reads until the server has processed n streams and a ping, or has had
// enough. It returns how many streams the server has processed, at least one.
func processedStreams(framer *http2.Framer, n int) int {
	processed := 1
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return processed
		}
		switch f := f.(type) {
		case *http2.PingFrame:
			return n
		case *http2.GoAwayFrame:
			processed = max(processed, int(f.LastStreamID+1)/2)
		}
	}
}
