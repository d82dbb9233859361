package redislimit_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

// A server is a Redis that belongs to one test, which may kill it.
type server struct {
	*redistest.Server
	t testing.TB
}

func startServer(t testing.TB, program string, args ...string) *server {
	t.Helper()
	return &server{redistest.NewProgram(t, program, args...), t}
}

func (s *server) start() {
	s.t.Helper()
	require.NoError(s.t, s.Start())
}

// kill ends the server with SIGKILL. A second call does nothing.
func (s *server) kill() {
	s.t.Helper()
	require.NoError(s.t, s.Kill())
}

func (s *server) pause() {
	s.t.Helper()
	require.NoError(s.t, s.Pause())
}

func (s *server) resume() {
	s.t.Helper()
	require.NoError(s.t, s.Resume())
}

// client returns a client with ContextTimeoutEnabled.
func (s *server) client() *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true})
}

func eventually(t testing.TB, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("not within a minute: %v", err)
}

// startSentinel starts a Sentinel that declares the master dead after half a second without
// an answer and promotes its replica. It returns the Sentinel's address.
func startSentinel(t testing.TB, master *server) string {
	t.Helper()
	port, err := testservers.FreePort()
	require.NoError(t, err)
	dir := t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, `
		port %d
		bind 127.0.0.1
		dir %s
		sentinel monitor limits 127.0.0.1 %d 1
		sentinel down-after-milliseconds limits 500
		sentinel failover-timeout limits 5000
		`, port, dir, master.Port()), 0o600))
	p, err := testservers.Start(testservers.Command{
		Args: []string{"redis-server", conf, "--sentinel"}, Dir: dir, Log: filepath.Join(dir, "log"), End: "KILL",
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.End("KILL")) })
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// startCluster starts a Cluster of three masters.
func startCluster(t testing.TB) (*redis.ClusterClient, []*server) {
	t.Helper()
	nodes := make([]*server, 3)
	bus := make([]int, len(nodes))
	addrs := make([]string, len(nodes))
	for i := range nodes {
		var err error
		bus[i], err = testservers.FreePort()
		require.NoError(t, err)
		nodes[i] = startServer(t, "redis-server", "--cluster-enabled", "yes", "--cluster-node-timeout", "15000",
			"--cluster-require-full-coverage", "no",
			"--cluster-port", strconv.Itoa(bus[i]))
		addrs[i] = nodes[i].Addr()
	}
	ctx := context.Background()
	for i, n := range nodes {
		c := n.client()
		defer c.Close()
		require.NoError(t, c.ClusterAddSlotsRange(ctx, i*16384/3, (i+1)*16384/3-1).Err())
		require.NoError(t, c.Do(ctx, "cluster", "set-config-epoch", i+1).Err())
		if i > 0 {
			require.NoError(t, c.Do(ctx, "cluster", "meet", "127.0.0.1", nodes[0].Port(), bus[0]).Err())
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
