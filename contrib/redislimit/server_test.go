package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A server is a Redis of the test's own, so that it can be killed.
type server struct {
	t    testing.TB
	args []string
	port int
	dir  string
	cmd  *exec.Cmd
}

// program returns the path of a server program. Without redis-server there is
// nothing to test.
func program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	require.NoError(t, err, "the tests start servers of their own: install %s", name)
	return path
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func startServer(t testing.TB, name string, args ...string) *server {
	t.Helper()
	s := &server{t: t, port: freePort(t), dir: t.TempDir()}
	s.args = append([]string{program(t, name),
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir,
		"--save", "", "--appendonly", "no"}, args...)
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *server) start() {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.dir, "log"))
	require.NoError(s.t, err)
	defer log.Close()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	require.NoError(s.t, s.cmd.Start())
	s.wait()
}

// wait returns when the server answers.
func (s *server) wait() {
	s.t.Helper()
	c := s.client()
	defer c.Close()
	eventually(s.t, func() error { return c.Ping(context.Background()).Err() })
}

// kill is kill -9, and nothing the second time.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	require.NoError(s.t, s.cmd.Process.Signal(sig))
}

// client returns a client as the package wants it.
func (s *server) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.addr(), ContextTimeoutEnabled: true})
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within 20 s: %v", err)
}

// startCluster starts three masters that share the slots.
func startCluster(t testing.TB) (*redis.ClusterClient, []*server) {
	t.Helper()
	nodes := make([]*server, 3)
	addrs := make([]string, len(nodes))
	for i := range nodes {
		nodes[i] = startServer(t, "redis-server", "--cluster-enabled", "yes", "--cluster-node-timeout", "15000",
			"--cluster-require-full-coverage", "no",
			"--cluster-port", strconv.Itoa(freePort(t)))
		addrs[i] = nodes[i].addr()
	}
	ctx := context.Background()
	for i, n := range nodes {
		c := n.client()
		defer c.Close()
		require.NoError(t, c.ClusterAddSlotsRange(ctx, i*16384/3, (i+1)*16384/3-1).Err())
		require.NoError(t, c.Do(ctx, "cluster", "set-config-epoch", i+1).Err())
		if i > 0 {
			bus := nodes[0].args[len(nodes[0].args)-1]
			require.NoError(t, c.Do(ctx, "cluster", "meet", "127.0.0.1", nodes[0].port, bus).Err())
		}
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { client.Close() })
	for _, n := range nodes {
		c := n.client()
		defer c.Close()
		eventually(t, func() error {
			info, err := c.ClusterInfo(ctx).Result()
			if err == nil && !contains(info, "cluster_state:ok", "cluster_known_nodes:3", "cluster_slots_ok:16384") {
				err = errors.New(info)
			}
			return err
		})
	}
	return client, nodes
}
