// Package redistest gives tests a Redis server: the one at the URL in
// SENDERAUTH_TEST_REDIS, or a new one from the installed redis-server.
package redistest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

// A Server is a Redis server that belongs to the tests. It loses its data when it ends.
type Server struct {
	args    []string
	dir     string
	port    int
	process *testservers.Process // nil if it does not run
}

// ErrMissing means that the program of the server is not installed.
var ErrMissing = errors.New("not installed")

// Run returns a redis-server, started with additional arguments, for a program, which
// calls [Server.Remove] in the end.
func Run(args ...string) (*Server, error) { return newServer("redis-server", args) }

func newServer(program string, args []string) (*Server, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("%s is %w", program, ErrMissing)
	}
	var s Server
	if s.port, err = testservers.FreePort(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "senderauth-redis-"); err != nil {
		return nil, err
	}
	s.args = append([]string{path, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "no"}, args...)
	if err := s.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return &s, nil
}

// Addr returns the address of the server as host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// Port returns the port of Addr.
func (s *Server) Port() int { return s.port }

// URL returns the address of the server as redis://host:port.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Start starts a stopped server and waits until it answers.
func (s *Server) Start() error {
	log := filepath.Join(s.dir, "log")
	p, err := testservers.Start(testservers.Command{Args: s.args, Dir: s.dir, Log: log, End: "KILL"})
	if err != nil {
		return err
	}
	s.process = p
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err = s.ping(); err == nil {
			return nil
		}
		if time.Now().After(end) {
			said, _ := os.ReadFile(log)
			return errors.Join(fmt.Errorf("redis does not answer: %w\n%s", err, said), s.Kill())
		}
	}
}

func (s *Server) ping() error {
	c, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("PING: %q", line)
	}
	return err
}

// Stop ends the server as an administrator does, with SIGTERM. It does nothing if the
// server does not run.
func (s *Server) Stop() error { return s.end("TERM") }

// Kill ends the server with SIGKILL. It does nothing if the server does not run.
func (s *Server) Kill() error { return s.end("KILL") }

func (s *Server) end(signal string) error {
	if s.process == nil {
		return nil
	}
	p := s.process
	s.process = nil
	return p.End(signal)
}

// Restart kills the server and starts it again, empty, on the same port.
func (s *Server) Restart() error {
	if err := s.Kill(); err != nil {
		return err
	}
	return s.Start()
}

// Pause makes the server hang: it accepts connections and does not answer.
func (s *Server) Pause() error { return s.process.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.process.Signal(syscall.SIGCONT) }

// Remove ends the server and deletes its data.
func (s *Server) Remove() error { return errors.Join(s.Kill(), os.RemoveAll(s.dir)) }

// New returns a redis-server, started with additional arguments, for one test only,
// which may kill it.
func New(t testing.TB, args ...string) *Server {
	t.Helper()
	return NewProgram(t, "redis-server", args...)
}

// NewProgram is New with a compatible program, such as valkey-server.
func NewProgram(t testing.TB, program string, args ...string) *Server {
	t.Helper()
	s, err := newServer(program, args)
	need(t, err)
	t.Cleanup(func() { require.NoError(t, s.Remove()) })
	return s
}

func need(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrMissing) {
		testservers.Missing(t, err.Error())
	}
	require.NoError(t, err)
}

var shared struct {
	sync.Once
	*Server
	err error
}

// URL returns the URL of a server that all tests share. They must not change its
// configuration, and must use their own keys.
func URL(t testing.TB) string {
	t.Helper()
	if url := os.Getenv("SENDERAUTH_TEST_REDIS"); url != "" {
		return url
	}
	shared.Do(func() {
		if shared.Server, shared.err = newServer("redis-server", nil); shared.err == nil {
			testservers.AtEnd(shared.Remove)
		}
	})
	need(t, shared.err)
	return shared.URL()
}
