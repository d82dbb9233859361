package redislimit_test

import (
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// rights are the commands that README.md says a limiter may have to run.
var rights = []string{"+evalsha", "+eval", "+get", "+set", "+time"}

// restrict gives the user "limiter" these rights on the keys of a test, and no other.
func restrict(t *testing.T, s *server, rights ...string) {
	t.Helper()
	admin := s.client()
	defer admin.Close()
	rule := []any{"acl", "setuser", "limiter", "reset", "on", ">secret", "~{" + prefix(t) + ":v1:*"}
	for _, r := range rights {
		rule = append(rule, r)
	}
	require.NoError(t, admin.Do(ctx, rule...).Err())
}

func restricted(s *server) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: s.Addr(), Username: "limiter", Password: "secret", ContextTimeoutEnabled: true})
}

// The rights in README.md suffice for decisions and probes. Reset needs two more.
func TestDocumentedRightsSuffice(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		s := startServer(t, "redis-server")
		restrict(t, s, rights...)
		c := restricted(s)
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Failures: 1, Timeout: patient})
		for range 1000 { // enough for leases
			take(t, l, "a", charge("x", hourly(1_000_000), 1))
		}
		require.NoError(t, m.are())
		s.kill()
		take(t, l, "b", charge("x", hourly(10), 0))
		require.NoError(t, m.are(redislimit.Fallback))
		s.start()
		restrict(t, s, rights...)
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })

		require.Equal(t, 7, take(t, l, "c", charge("x", hourly(10), 3))[0].Remaining)
		require.Error(t, l.Reset(ctx, "c"))
		restrict(t, s, append([]string{"+scan", "+del"}, rights...)...)
		require.NoError(t, l.Reset(ctx, "c"))
		require.Equal(t, 10, take(t, l, "c", charge("x", hourly(10), 0))[0].Remaining)
	})
}

func TestDocumentedRightsSufficeInAnotherDatabase(t *testing.T) {
	s := startServer(t, "redis-server")
	restrict(t, s, append([]string{"+select"}, rights...)...)
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), Username: "limiter", Password: "secret", DB: 3, ContextTimeoutEnabled: true})
	defer c.Close()
	l := open(t, c, redislimit.Config{FailClosed: true, Timeout: patient})
	require.Equal(t, 9, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
}

func TestEachDocumentedRightIsNeeded(t *testing.T) {
	s := startServer(t, "redis-server")
	for i, r := range rights {
		restrict(t, s, slices.Delete(slices.Clone(rights), i, i+1)...)
		c := restricted(s)
		defer c.Close()
		l := open(t, c, redislimit.Config{FailClosed: true, Timeout: patient})
		_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(10), 1)})
		require.ErrorIs(t, err, redislimit.ErrUnavailable, r)
	}
}

// A Cluster needs three more, also while a slot moves.
func TestDocumentedRightsSufficeInACluster(t *testing.T) {
	admin, nodes := startCluster(t)
	for _, n := range nodes {
		restrict(t, n, append([]string{"+cluster|slots", "+command", "+asking"}, rights...)...)
	}
	o := *admin.Options()
	o.Username, o.Password = "limiter", "secret"
	c := redis.NewClusterClient(&o)
	defer c.Close()
	l := open(t, c, redislimit.Config{FailClosed: true, Timeout: patient})
	for _, sender := range []string{"a", "b", "c", "d", "e", "f"} {
		require.Equal(t, 9, take(t, l, sender, charge("x", hourly(10), 1))[0].Remaining)
	}

	// A server whose slot is about to move answers ASK if it does not have the key.
	key := "{" + prefix(t) + ":v1:a}:x"
	slot := int(admin.ClusterKeySlot(ctx, key).Val())
	at := firstMaster(slot)
	from, to := nodes[at].client(), nodes[(at+1)%len(nodes)].client()
	defer from.Close()
	defer to.Close()
	require.NoError(t, to.Do(ctx, "cluster", "setslot", slot, "importing", from.Do(ctx, "cluster", "myid").Val()).Err())
	require.NoError(t, from.Do(ctx, "cluster", "setslot", slot, "migrating", to.Do(ctx, "cluster", "myid").Val()).Err())
	require.NoError(t, from.Del(ctx, key).Err())
	require.Equal(t, 8, take(t, l, "a", charge("x", hourly(10), 2))[0].Remaining)
}
