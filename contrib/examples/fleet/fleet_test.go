package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

var binary string // the built program

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "senderauth-fleet")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "fleet")
	if out, err := exec.Command("go", "build", "-o", binary).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return testservers.Run(m)
}

// oneRound is what the program says of a round.
const oneRound = `^ +[\d.]+ s  PostgreSQL on 127\.0\.0\.1:\d+ keeps the keys, Redis on 127\.0\.0\.1:\d+ the limits
( +[\d.]+ s  instance [123] serves on 127\.0\.0\.1:\d+
){3} +[\d.]+ s  20 senders below their limit and one above it send 80 requests a second
 +[\d.]+ s  A key is revoked
( +[\d.]+ s    instance [123] refuses it \d+ms later
){3} +[\d.]+ s  Redis is killed
( +[\d.]+ s    instance [123] enforces its third of each limit \d+ms later
){3} +[\d.]+ s  Redis is back, empty
( +[\d.]+ s    instance [123] uses it \d+ms later
){3}
 +admitted +refused +p50 +p99
( +instance [123] +\d+ +\d+ +[\d.]+ ms +[\d.]+ ms
){3}
 +[\d.]+ s  \d+ requests admitted, \d+ refused, 0 wrong answers
 +[\d.]+ s  The sender above its limit got \d+ requests in [\d.]+ s: 50 \+ 3\.3 a second, and at most 100 more for each outage of Redis
$`

// needServers ends the test if a server is not installed.
func needServers(t *testing.T) {
	t.Helper()
	pgtest.URL(t)
	redistest.URL(t)
}

func TestOneRoundKeepsAllPromises(t *testing.T) {
	needServers(t)
	out, err := exec.Command(binary, "-once").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Regexp(t, oneRound, string(out))
}

func TestInterruptEndsWithASummary(t *testing.T) {
	needServers(t)
	cmd := exec.Command(binary)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var errors bytes.Buffer
	cmd.Stderr = &errors
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var last string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		last = lines.Text()
		if strings.Contains(last, "A key is revoked") {
			// As a terminal does for Ctrl-C: to the program and all of its group.
			require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGINT))
		}
	}
	require.NoError(t, cmd.Wait(), errors.String())
	require.Regexp(t, `s  The sender above its limit got \d+ requests in `, last)
	require.Empty(t, errors.String())
}

func TestWrongArguments(t *testing.T) {
	for _, args := range [][]string{{"-twice"}, {"twice"}} {
		out, err := exec.Command(binary, args...).CombinedOutput()
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit)
		require.Equal(t, 1, exit.ExitCode())
		require.Regexp(t, `^fleet: .*twice.*\n$`, string(out))
	}
}

func TestBrokenPromisesAreReported(t *testing.T) {
	var i instance
	i.name = "instance 1"
	for _, a := range []answer{{status: 200}, {status: 429}, {status: 503}, {err: errors.New("cut off")}} {
		i.seen.add(a, true)
		i.seen.add(a, false)
	}
	var out bytes.Buffer
	s := newScreen(&out, false, []*instance{&i})
	err := summarize(s, s.instances, burst+10*perMinute/60+1, 10*time.Second, 0)
	require.EqualError(t, err, "instance 1 gave 5 wrong answers, the first: 429 for a sender below its limit\n"+
		"the sender above its limit got 84 requests, more than 83")
	require.Contains(t, out.String(), "2 requests admitted, 1 refused, 5 wrong answers\n")
	require.NoError(t, summarize(s, nil, burst+10*perMinute/60, 10*time.Second, 0))
	require.NoError(t, summarize(s, nil, 3*burst, time.Second, 1), "an outage of Redis gives away two bursts")
}

func TestRevokedKeyThatIsServedIsReported(t *testing.T) {
	// An instance that nobody tells of the revocation.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	defer server.Close()
	i := &instance{name: "instance 1", addr: server.Listener.Addr().String()}
	_, err := untilRefused(t.Context(), server.Client(), i, sqlkeys.Issued{}, time.Now().Add(-2*time.Second))
	require.ErrorContains(t, err, "instance 1 answered a revoked key with 200 after 2")
}

func TestTerminalShowsTheTableBelowTheLines(t *testing.T) {
	var out bytes.Buffer
	i := &instance{name: "instance 1"}
	i.seen.add(answer{status: 200, took: 1500 * time.Microsecond}, true)
	s := newScreen(&out, true, []*instance{i})
	table := "\n                admitted   refused      p50      p99\n   instance 1          1         0   1.5 ms   1.5 ms\n\n"
	stop := s.draw()
	s.say("one")
	s.say("two")
	stop()
	s.say("three")
	const clear = "\x1b[4A\x1b[J"
	require.Equal(t, "  0.0 s  one\n"+table+clear+"  0.0 s  two\n"+table+clear+table+"  0.0 s  three\n", out.String())
}
