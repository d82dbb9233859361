// Package pgtest gives tests a PostgreSQL: the one of SENDERAUTH_TEST_POSTGRES,
// or one of their own, started from the machine's binaries.
package pgtest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
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
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"
)

// A Server is a PostgreSQL of the tests' own, which can be killed.
type Server struct {
	dir, data, bin string
	port           int
	cmd            *exec.Cmd
	alive          io.Closer // the server stops when it is closed, or the process ends
}

var errNoPostgres = errors.New("no PostgreSQL: set SENDERAUTH_TEST_POSTGRES, or install the server")

func findPostgres() (bin string, err error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, string(out[:len(out)-1]))
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(dirs[i], "initdb")); err == nil {
			return dirs[i], nil
		}
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(p), nil
	}
	return "", errNoPostgres
}

// ordinary is the user that the server runs as: it refuses root.
func ordinary() (*syscall.SysProcAttr, int, int, error) {
	if os.Geteuid() != 0 {
		return nil, os.Getuid(), os.Getgid(), nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, 0, 0, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, uid, gid, nil
}

func newServer() (*Server, error) {
	bin, err := findPostgres()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sqlkeys-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, data: filepath.Join(dir, "data"), bin: bin}
	attr, uid, gid, err := ordinary()
	if err != nil {
		return nil, err
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		return nil, err
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", s.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
	initdb.SysProcAttr, initdb.Dir = attr, dir
	if out, err := initdb.CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	return s, s.Start()
}

// Start returns when the server accepts connections.
func (s *Server) Start() error {
	attr, _, _, err := ordinary()
	if err != nil {
		return err
	}
	// The shell stops the server when its standard input ends, however the
	// tests end.
	script := `"$0" "$@" & pid=$!; cat >/dev/null; kill -QUIT $pid; wait $pid`
	s.cmd = exec.Command("sh", "-c", script, filepath.Join(s.bin, "postgres"), "-D", s.data, "-k", s.dir,
		"-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
		"-c", "shared_buffers=64MB", "-c", "max_connections=200", "-c", "log_min_messages=panic")
	s.cmd.SysProcAttr, s.cmd.Dir = attr, s.dir
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return err
	}
	s.alive = in
	if err := s.cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return c.Close(ctx)
		}
		select {
		case <-ctx.Done():
			s.Stop()
			return fmt.Errorf("the server does not accept connections: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends the server at once, as a crash does.
func (s *Server) Stop() error {
	if err := s.alive.Close(); err != nil {
		return err
	}
	var exit *exec.ExitError // the shell's, which is that of the server
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

func (s *Server) remove() {
	s.Stop()
	os.RemoveAll(s.dir)
}

func (s *Server) url(database string) string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

var shared struct {
	sync.Once
	*Server
	err error
}

// Main runs the tests of a package, and then stops the server that they share.
func Main(m *testing.M) {
	code := m.Run()
	if shared.Server != nil {
		shared.remove()
	}
	os.Exit(code)
}

// New returns a server for one test alone.
func New(t testing.TB) *Server {
	s, err := newServer()
	needServer(t, err)
	t.Cleanup(s.remove)
	return s
}

// URL returns the URL of a new database of the server.
func (s *Server) URL(t testing.TB) string { return newDatabase(t, s.url("postgres")) }

// needServer ends a test that has no PostgreSQL.
func needServer(t testing.TB, err error) {
	if errors.Is(err, errNoPostgres) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
}

var databases atomic.Int64

// URL returns the URL of a new database on the server that tests share.
func URL(t testing.TB) string {
	base := os.Getenv("SENDERAUTH_TEST_POSTGRES")
	if base == "" {
		shared.Do(func() { shared.Server, shared.err = newServer() })
		needServer(t, shared.err)
		base = shared.url("postgres")
	}
	return newDatabase(t, base)
}

func newDatabase(t testing.TB, base string) string {
	name := fmt.Sprintf("sqlkeys_%d_%d", os.Getpid(), databases.Add(1))
	admin, err := sql.Open("pgx", base)
	require.NoError(t, err)
	_, err = admin.Exec("CREATE DATABASE " + name)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec("DROP DATABASE IF EXISTS " + name + " WITH (FORCE)")
		require.NoError(t, err)
		require.NoError(t, admin.Close())
	})
	u, err := url.Parse(base)
	require.NoError(t, err)
	u.Path = "/" + name
	return u.String()
}
