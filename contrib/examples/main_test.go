package examples_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

const (
	sender = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11"
	key    = "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"

	otherSender = "c3a1f0de-1111-4c7e-8d55-5a2f60b7e902"
	otherKey    = "5d0c7a52-93fe-4b06-a1c8-77e21fd3b604"
)

var programs = []string{"quickstart", "chi", "gin", "echo"}

var binaries string // directory of the built programs

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	var err error
	if binaries, err = os.MkdirTemp("", "senderauth-examples"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(binaries)
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", binaries)
	for _, p := range slices.Concat(programs, []string{"observed", "service"}) {
		build.Args = append(build.Args, "./"+p)
	}
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	senderkeys := exec.Command("go", "-C", "../sqlkeys", "build", "-ldflags=-s -w", "-o", binaries, "./cmd/senderkeys")
	senderkeys.Stdout, senderkeys.Stderr = os.Stderr, os.Stderr
	if err := errors.Join(build.Run(), senderkeys.Run()); err != nil {
		fmt.Fprintln(os.Stderr, "go build:", err)
		return 1
	}
	return testservers.Run(m)
}

// A process is a running program.
type process struct {
	*exec.Cmd
	addr string

	mu     sync.Mutex
	stdout bytes.Buffer
	stderr []string // lines
	more   *sync.Cond
	ended  bool
	err    error // from Wait, once ended
}

// patience bounds how long a test waits for a broken process. No test waits that long
// for a working one.
const patience = 3 * time.Minute

// command returns a command on a database that many tests share, unless env or args
// name another one.
func command(program string, env []string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(binaries, program), args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "SENT_") || strings.HasPrefix(v, "SENDERAUTH_")
	})
	cmd.Env = append(cmd.Env, "SENDERAUTH_DB="+filepath.Join(binaries, "shared.db"))
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

func pairOf(sender, key string) []string {
	return []string{"SENT_SENDER_ID=" + sender, "SENT_API_KEY=" + key}
}

var pair = pairOf(sender, key)

// start starts a program on a free port and waits until it listens. The end of the
// test stops it and searches its log for keys.
func start(t *testing.T, program string, env []string, args ...string) *process {
	t.Helper()
	return launch(t, program, env, args...).ready(t)
}

// launch is start without waiting until the program listens.
func launch(t *testing.T, program string, env []string, args ...string) *process {
	t.Helper()
	return prepare(program, env, args...).launch(t)
}

func prepare(program string, env []string, args ...string) *process {
	return &process{Cmd: command(program, env, append([]string{"-addr", "127.0.0.1:0", "-log", "debug"}, args...)...)}
}

func (p *process) launch(t *testing.T) *process {
	t.Helper()
	p.more = sync.NewCond(&p.mu)
	p.Stdout = stdout{p}
	pipe, err := p.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, p.Start())
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			p.mu.Lock()
			p.stderr = append(p.stderr, lines.Text())
			p.more.Broadcast()
			p.mu.Unlock()
		}
		err := p.Wait()
		p.mu.Lock()
		p.ended, p.err = true, err
		p.more.Broadcast()
		p.mu.Unlock()
	}()
	deadline := time.AfterFunc(patience, func() { p.Process.Kill() })
	t.Cleanup(func() {
		p.Process.Signal(syscall.SIGTERM)
		p.wait()
		deadline.Stop()
		keys := []string{key}
		for _, v := range append(p.Env, strings.Split(p.stdout.String(), "\n")...) {
			if key, ok := strings.CutPrefix(v, "SENT_API_KEY="); ok {
				keys = append(keys, key)
			}
		}
		for _, line := range p.stderr {
			for _, key := range keys {
				noKey(t, line, key)
			}
			require.True(t, json.Valid([]byte(line)), "a line of the log is not JSON: %s", line)
		}
	})
	return p
}

func (p *process) ready(t *testing.T) *process {
	t.Helper()
	p.addr = p.awaitLog(t, "listening")["addr"].(string)
	return p
}

// stop ends the process as an operator does, with SIGTERM.
func (p *process) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.NoError(t, p.wait(), "exit status 0")
}

// stdout records what the process writes to standard output.
type stdout struct{ *process }

func (o stdout) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.more.Broadcast()
	return o.process.stdout.Write(b)
}

// introduction waits until the process has printed a command, to try the new key or to
// make another one, and returns its standard output.
func (p *process) introduction() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended && !lastLine.Match(p.stdout.Bytes()) {
		p.more.Wait()
	}
	return p.output()
}

// output returns what the program has printed, without the link to its keys page.
func (p *process) output() string { return invitation.ReplaceAllString(p.stdout.String(), "") }

var invitation = regexp.MustCompile(`^Manage keys in a browser on this machine \(the link works once\): (\S+)\n\n`)

var lastLine = regexp.MustCompile(`(?m)^(curl|Another key:) .*\n`)

// awaitLog returns the first line of the log with this message.
func (p *process) awaitLog(t *testing.T, msg string) map[string]any {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for next := 0; ; p.more.Wait() {
		for ; next < len(p.stderr); next++ {
			var line map[string]any
			if json.Unmarshal([]byte(p.stderr[next]), &line) == nil && line["msg"] == msg {
				return line
			}
		}
		require.False(t, p.ended, "the process ended without %q: %v\n%s", msg, p.err, strings.Join(p.stderr, "\n"))
	}
}

// lines counts the lines of the log that contain text.
func (p *process) lines(text string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.stderr {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// wait waits until the process has ended.
func (p *process) wait() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended {
		p.more.Wait()
	}
	return p.err
}

// noKey fails the test if s contains eight consecutive characters of key. The prefix of a
// prefixed key is public: one character of the secret after it can be that of "sender_id".
func noKey(t *testing.T, s, key string) {
	t.Helper()
	key = strings.TrimPrefix(key, "sender_")
	for i := range max(0, len(key)-7) {
		if strings.Contains(s, key[i:i+8]) {
			t.Fatalf("the output contains eight characters of the key, from character %d on", i)
		}
	}
}

// A request has a method and path as its target, header fields in pairs, and a body.
type request struct {
	target string
	header []string
	body   string
}

func as(sender, key string) []string { return []string{"x-sender-id", sender, "x-api-key", key} }

var authorized = as(sender, key)

func (p *process) do(t *testing.T, r request) *http.Response {
	t.Helper()
	method, path, _ := strings.Cut(r.target, " ")
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.addr, strings.NewReader(r.body))
	require.NoError(t, err)
	req.URL.Opaque = "//" + p.addr + path // sent as written, not cleaned
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Add(r.header[i], r.header[i+1])
	}
	res, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(req)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res
}

var wholeNumber = regexp.MustCompile(`^[1-9][0-9]*$`)

// whole returns the whole response as text, without the date. It checks the time of
// the reset and replaces it.
func (p *process) whole(t *testing.T, r request) string {
	t.Helper()
	before := time.Now().Unix()
	res := p.do(t, r)
	var b strings.Builder
	fmt.Fprintln(&b, res.Status)
	res.Header.Del("Date")
	for _, name := range slices.Sorted(maps.Keys(res.Header)) {
		value := strings.Join(res.Header[name], " | ")
		if name == "X-Ratelimit-Reset" {
			require.Regexp(t, wholeNumber, value)
			var reset int64
			fmt.Sscan(value, &reset)
			require.GreaterOrEqual(t, reset, before)
			require.LessOrEqual(t, reset, time.Now().Unix()+61)
			value = "soon"
		}
		fmt.Fprintf(&b, "%s: %s\n", name, value)
	}
	body, _ := io.ReadAll(res.Body)
	b.WriteString("\n" + string(body))
	return b.String()
}
