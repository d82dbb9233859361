package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed clients
var scripts embed.FS

// A pace is how fast a client sends: first bytes at once, then chunk bytes every
// interval. If chunk is 0 it sends everything at once.
type pace struct {
	name         string
	first, chunk int
	interval     time.Duration
}

var (
	fast    = pace{name: "fast"}
	slow    = pace{"2 Mbit/s", 0, 10_000, 40 * time.Millisecond}
	trickle = pace{"5 kB/s", 10_000, 100, 20 * time.Millisecond}
)

// An answer is what a client got: a response or an error.
type answer struct {
	Status int
	Body   string
	Error  string
}

// A client uploads size bytes to url, n times one after the other.
type client struct {
	name   string
	upload func(ctx context.Context, dir, url string, size int, p pace, n int) []answer
}

var clients = []client{
	{"curl", curl},
	{"Go", golang},
	{"node:http", script("node", "client.mjs", "http")},
	{"fetch", script("node", "client.mjs", "fetch")},
	{"Python", script("python3", "client.py")},
}

// sends reports whether the client can send at this pace.
func (c client) sends(p pace) bool { return p != trickle || c.name != "curl" }

// programs returns the names of the programs that the clients and proxies need.
func programs() []string {
	names := []string{"curl", "node", "python3"}
	for _, p := range proxies {
		names = append(names, p.program)
	}
	return names
}

// writeScripts writes the scripts of the clients into dir.
func writeScripts(dir string) error { return os.CopyFS(dir, scripts) }

func script(program, name string, args ...string) func(context.Context, string, string, int, pace, int) []answer {
	return func(ctx context.Context, dir, url string, size int, p pace, n int) []answer {
		args := append([]string{filepath.Join(dir, "clients", name)}, args...)
		args = append(args, url)
		for _, v := range []int{size, p.first, p.chunk, int(p.interval.Milliseconds()), n} {
			args = append(args, strconv.Itoa(v))
		}
		out, err := exec.CommandContext(ctx, program, args...).Output()
		var answers []answer
		for d := json.NewDecoder(bytes.NewReader(out)); len(answers) < n; {
			var a answer
			if failed := d.Decode(&a); failed != nil {
				a.Error = fmt.Sprint(program, ": ", err, ", ", failed)
			}
			answers = append(answers, a)
		}
		return answers
	}
}

func curl(ctx context.Context, dir, url string, size int, p pace, n int) []answer {
	file := filepath.Join(dir, strconv.Itoa(size))
	args := []string{"--silent", "--show-error", "--max-time", "120", "--data-binary", "@" + file, "--write-out", "\n%{http_code}"}
	if p.chunk > 0 {
		args = append(args, "--limit-rate", strconv.Itoa(p.chunk*int(time.Second/p.interval)))
	}
	if err := os.WriteFile(file, make([]byte, size), 0o600); err != nil {
		return []answer{{Error: err.Error()}}
	}
	var answers []answer
	for range n {
		// The last line is the status, or 000 if there was no answer. An error of curl
		// after the answer does not matter.
		var a answer
		out, err := exec.CommandContext(ctx, "curl", append(args, url)...).Output()
		if end := bytes.LastIndexByte(out, '\n'); end >= 0 {
			a.Status, _ = strconv.Atoi(string(out[end+1:]))
			a.Body = string(out[:end])
		}
		if err != nil {
			a.Error = err.Error()
		}
		answers = append(answers, a)
	}
	return answers
}

func golang(ctx context.Context, _, url string, size int, p pace, n int) []answer {
	var answers []answer
	for range n {
		a, err := post(ctx, url, size, p)
		if err != nil {
			a.Error = err.Error()
		}
		answers = append(answers, a)
	}
	return answers
}

func post(ctx context.Context, url string, size int, p pace) (a answer, err error) {
	var body io.Reader = bytes.NewReader(make([]byte, size))
	if p.chunk > 0 {
		body = &paced{pace: p, start: time.Now(), body: body}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return a, err
	}
	req.ContentLength = int64(size)
	c := &http.Client{Transport: &http.Transport{}, Timeout: 2 * time.Minute}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{Status: res.StatusCode, Body: string(text)}, err
}

// paced is a body that is read at a pace.
type paced struct {
	pace
	start  time.Time
	body   io.Reader
	chunks int
}

func (p *paced) Read(b []byte) (int, error) {
	n := p.chunk
	if p.chunks == 0 && p.first > 0 {
		n = p.first
	} else {
		time.Sleep(time.Until(p.start.Add(time.Duration(p.chunks) * p.interval)))
	}
	p.chunks++
	return p.body.Read(b[:min(n, len(b))])
}
