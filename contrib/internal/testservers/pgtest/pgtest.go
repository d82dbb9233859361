// Package pgtest gives tests a PostgreSQL server: the one at the URL in
// SENDERAUTH_TEST_POSTGRES, or a new one from the installed binaries.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

// A Server is a PostgreSQL server that belongs to the tests. Committed data survives
// [Server.Kill], but not a crash of the machine.
type Server struct {
	dir, bin string
	port     int
	user     *syscall.Credential
	process  *testservers.Process // nil if it does not run
}

// ErrMissing means that no PostgreSQL is installed.
var ErrMissing = errors.New("no PostgreSQL: install it, or set SENDERAUTH_TEST_POSTGRES")

func findBinaries() (dir string, err error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(out[:len(out)-1]))
	}
	if initdb, err := exec.LookPath("initdb"); err == nil {
		if initdb, err = filepath.EvalSymlinks(initdb); err == nil { // the other programs are there
			dirs = append(dirs, filepath.Dir(initdb))
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(dirs[i], "initdb")); err == nil {
			return dirs[i], nil
		}
	}
	return "", ErrMissing
}

// ordinary returns a user for the server, which refuses to run as root. Nil means the
// user of the tests.
func ordinary() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// Run returns a server for a program, which calls [Server.Remove] in the end.
func Run() (*Server, error) { return newServer(initdb) }

// newServer starts a server whose data directory the program of fill makes.
func newServer(fill func(s *Server) *exec.Cmd) (_ *Server, err error) {
	var s Server
	if s.bin, err = findBinaries(); err != nil {
		return nil, err
	}
	if s.user, err = ordinary(); err != nil {
		return nil, err
	}
	if s.port, err = testservers.FreePort(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp("", "senderauth-postgres-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(s.dir)
		}
	}()
	program := fill(&s)
	program.Dir = s.dir
	if s.user != nil {
		program.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
		if err := os.Chown(s.dir, int(s.user.Uid), int(s.user.Gid)); err != nil {
			return nil, err
		}
	}
	if out, err := program.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", program.Path, err, out)
	}
	return &s, s.Start()
}

func initdb(s *Server) *exec.Cmd {
	return exec.Command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Start starts a stopped server and waits until it accepts connections.
func (s *Server) Start() error {
	log := filepath.Join(s.dir, "log")
	p, err := testservers.Start(testservers.Command{
		Args: []string{filepath.Join(s.bin, "postgres"), "-D", s.data(), "-k", s.dir, "-p", strconv.Itoa(s.port),
			"-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", "-c", "shared_buffers=64MB",
			"-c", "fsync=off"},
		Dir:  s.dir,
		Log:  log,
		User: s.user,
		End:  "QUIT",
	})
	if err != nil {
		return err
	}
	s.process = p
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.url())
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			return errors.Join(fmt.Errorf("postgres does not accept connections: %w\n%s", err, said), s.Kill())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server as an administrator does, closing every connection first. It
// does nothing if the server does not run.
func (s *Server) Stop() error { return s.end("INT") }

// Kill ends the server at once, as a crash does. It does nothing if the server does not
// run.
func (s *Server) Kill() error { return s.end("QUIT") }

func (s *Server) end(signal string) error {
	if s.process == nil {
		return nil
	}
	p := s.process
	s.process = nil
	return p.End(signal)
}

// Restart stops the server and starts it again, on the same port.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start()
}

// Remove ends the server and deletes its data.
func (s *Server) Remove() error { return errors.Join(s.Kill(), os.RemoveAll(s.dir)) }

// Program returns a command that runs one of the programs that come with the server, such as
// pg_dump.
func (s *Server) Program(name string, args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(s.bin, name), args...)
}

// Addr returns the address of the server as host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// URLAt returns the URL of the database that the server begins with, for clients that
// reach the server at addr.
func URLAt(addr string) string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", addr)
}

func (s *Server) url() string { return URLAt(s.Addr()) }

// New returns a server for one test only, which may kill it.
func New(t testing.TB) *Server {
	t.Helper()
	return newFor(t, initdb)
}

// Standby returns a server for one test only, which streams all changes from s.
func (s *Server) Standby(t testing.TB) *Server {
	t.Helper()
	return newFor(t, func(standby *Server) *exec.Cmd {
		return exec.Command(filepath.Join(s.bin, "pg_basebackup"), "-D", standby.data(), "-d", s.url(), "-R", "-c", "fast", "--no-sync")
	})
}

func newFor(t testing.TB, fill func(*Server) *exec.Cmd) *Server {
	t.Helper()
	s, err := newServer(fill)
	need(t, err)
	t.Cleanup(func() { require.NoError(t, s.Remove()) })
	return s
}

// Exec runs SQL as the superuser, in the database postgres.
func (s *Server) Exec(t testing.TB, sql string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), s.url())
	require.NoError(t, err)
	_, err = c.Exec(context.Background(), sql)
	require.NoError(t, errors.Join(err, c.Close(context.Background())))
}

// URL returns the URL of a new database on the server.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	return newDatabase(t, s.url())
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

// URL returns the URL of a new database on a server that all tests share.
func URL(t testing.TB) string {
	t.Helper()
	if base := os.Getenv("SENDERAUTH_TEST_POSTGRES"); base != "" {
		return newDatabase(t, base)
	}
	shared.Do(func() {
		if shared.Server, shared.err = newServer(initdb); shared.err == nil {
			testservers.AtEnd(shared.Remove)
		}
	})
	need(t, shared.err)
	return shared.URL(t)
}

var databases atomic.Int64

func newDatabase(t testing.TB, base string) string {
	t.Helper()
	name := fmt.Sprintf("senderauth_%d_%d", os.Getpid(), databases.Add(1))
	admin, err := pgx.Connect(context.Background(), base)
	require.NoError(t, err)
	_, err = admin.Exec(context.Background(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	require.NoError(t, admin.Close(context.Background()))
	t.Cleanup(func() {
		admin, err := pgx.Connect(context.Background(), base)
		if err != nil {
			return // the test has killed the server
		}
		_, err = admin.Exec(context.Background(), "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)")
		require.NoError(t, err)
		require.NoError(t, admin.Close(context.Background()))
	})
	u, err := url.Parse(base)
	require.NoError(t, err)
	u.Path = "/" + name
	return u.String()
}
