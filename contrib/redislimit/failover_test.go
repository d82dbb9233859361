package redislimit_test

import (
	"errors"
	"fmt"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// Until a replica is promoted it answers READONLY: a call is retried once, and then
// decided locally. After the promotion the bucket continues at its old level.
func TestFailover(t *testing.T) {
	master := startServer(t, "redis-server", "--repl-diskless-sync-delay", "0")
	replica := startServer(t, "redis-server", "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port()))
	c := replica.client()
	defer c.Close()
	var calls decisions
	c.AddHook(&calls)
	mc := master.client()
	defer mc.Close()
	var m modes
	l := open(t, c, redislimit.Config{Instances: 1, OnMode: m.add, Failures: 3, Timeout: patient})
	atMaster := open(t, mc, redislimit.Config{Timeout: patient})
	require.Equal(t, 6, take(t, atMaster, "a", charge("x", hourly(10), 4))[0].Remaining)
	eventually(t, func() error {
		if info := c.Info(ctx, "replication").Val(); !contains(info, "master_link_status:up") || c.DBSize(ctx).Val() == 0 {
			return errors.New(info)
		}
		return nil
	})
	for range 10 {
		take(t, l, "a", charge("y", hourly(1000), 1))
	}
	require.NoError(t, m.are(redislimit.Fallback))
	require.EqualValues(t, 6, calls.Load(), "3 decisions with one retry each")
	require.NoError(t, c.Do(ctx, "replicaof", "no", "one").Err())
	eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
	require.Equal(t, 5, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
}

// After a Sentinel has promoted the replica of a dead master, the limiter finds it by
// itself, and the bucket continues at its old level.
func TestSentinel(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		t.Parallel()
		master := startServer(t, "redis-server")
		replica := startServer(t, "redis-server", "--replicaof", "127.0.0.1 "+fmt.Sprint(master.Port()))
		sentinel := startSentinel(t, master)
		s := redis.NewSentinelClient(&redis.Options{Addr: sentinel})
		defer s.Close()
		eventually(t, func() error {
			replicas, err := s.Replicas(ctx, "limits").Result()
			if err == nil && (len(replicas) != 1 || replicas[0]["master-link-status"] != "ok") {
				err = fmt.Errorf("%v", replicas)
			}
			return err
		})
		c := redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "limits", SentinelAddrs: []string{sentinel}, ContextTimeoutEnabled: true})
		defer c.Close()
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, OnMode: m.add, Instances: 2, Timeout: patient, Failures: 1})
		require.Equal(t, 6, take(t, l, "a", charge("x", hourly(10), 4))[0].Remaining)
		rc := replica.client()
		defer rc.Close()
		eventually(t, func() error {
			if rc.DBSize(ctx).Val() == 0 {
				return errors.New("not replicated")
			}
			return nil
		})
		master.kill()
		d := startLoad(l, 4, charge("y", hourly(1000), 1))
		eventually(t, func() error { return m.are(redislimit.Fallback) })
		eventually(t, func() error {
			if !contains(rc.Info(ctx, "replication").Val(), "role:master") {
				return errors.New("not promoted")
			}
			return nil
		})
		promoted := time.Now()
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		t.Logf("shared again %v after the promotion", time.Since(promoted).Round(time.Millisecond))
		d.stop()
		require.Zero(t, d.failed.Load())
		require.Equal(t, 5, take(t, l, "a", charge("x", hourly(10), 1))[0].Remaining)
	})
}

func TestCluster(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		c, nodes := startCluster(t)
		var m modes
		l := open(t, c, redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add, Timeout: 3 * time.Second, Failures: 1})
		sender := func(i int) string { return fmt.Sprintf("sender-%d", i) }
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				b := take(t, l, sender(i), charge("x", hourly(10), 1), charge("y", hourly(5), 2))
				require.Equal(t, 9, b[0].Remaining)
				require.Equal(t, 3, b[1].Remaining)
			})
		}
		wg.Wait()
		require.NoError(t, m.are())

		require.NoError(t, l.Reset(ctx, sender(0)))
		b := take(t, l, sender(0), charge("x", hourly(10), 0), charge("y", hourly(5), 0))
		require.Equal(t, []senderauth.Balance{{Remaining: 10}, {Remaining: 5}}, b)
		require.Equal(t, 3, take(t, l, sender(1), charge("y", hourly(5), 0))[0].Remaining)
		require.Equal(t, 9, take(t, l, sender(0), charge("x", hourly(10), 1))[0].Remaining)

		// A slot moves to another master, and the client follows MOVED.
		slot := int(c.ClusterKeySlot(ctx, "{"+prefix(t)+":v1:"+sender(0)+"}").Val())
		from := firstMaster(slot)
		moveSlot(t, slot, nodes[from], nodes[(from+1)%len(nodes)], func() {})
		require.Equal(t, 8, take(t, l, sender(0), charge("x", hourly(10), 1))[0].Remaining)
		require.NoError(t, m.are())

		// One master hangs. Its senders are decided locally, and the others by their own
		// masters. It resumes before the Cluster declares it dead.
		nodes[2].pause()
		var shared, local atomic.Int64
		for i := range 60 {
			wg.Go(func() {
				switch b := take(t, l, sender(i), charge("z", hourly(100), 0)); b[0].Remaining {
				case 100:
					shared.Add(1)
				case 50:
					local.Add(1)
				}
			})
		}
		wg.Wait()
		nodes[2].resume()
		require.EqualValues(t, 60, shared.Load()+local.Load())
		require.Positive(t, shared.Load())
		require.Positive(t, local.Load())
		eventually(t, func() error { return m.are(redislimit.Fallback, redislimit.Shared) })
		require.Equal(t, 100, take(t, l, sender(1), charge("z", hourly(100), 0))[0].Remaining)
	})
}

// A slot of a Cluster that moves under load is no outage, also while one master has one key
// of the sender and another master the other: no decision is made locally.
func TestMovingSlotIsNoOutage(t *testing.T) {
	c, nodes := startCluster(t)
	var m modes
	l := open(t, c, redislimit.Config{Instances: 2, OnMode: m.add, Timeout: patient})
	slot := int(c.ClusterKeySlot(ctx, "{"+prefix(t)+":v1:a}").Val())
	at := firstMaster(slot)
	const burst = 1_000_000
	d := startLoad(l, 48, charge("x", hourly(burst), 1), charge("y", hourly(burst), 1))
	waitForDecisions := func() {
		before := d.admitted.Load()
		eventually(t, func() error {
			if n := d.admitted.Load() - before; n < 500 {
				return fmt.Errorf("%d decisions", n)
			}
			return nil
		})
	}
	waitForDecisions() // until both keys exist
	for range 10 {
		to := (at + 1) % len(nodes)
		source := nodes[at].client()
		defer source.Close()
		require.NoError(t, source.ConfigResetStat(ctx).Err())
		moveSlot(t, slot, nodes[at], nodes[to], func() {
			eventually(t, func() error {
				if info := source.Info(ctx, "errorstats").Val(); !regexp.MustCompile(`TRYAGAIN:count=\d{2}`).MatchString(info) {
					return errors.New(info)
				}
				return nil
			})
		})
		at = to
		waitForDecisions()
	}
	d.stop()
	require.NoError(t, m.are())
	require.Zero(t, d.failed.Load())
	require.EqualValues(t, burst-d.admitted.Load(), take(t, l, "a", charge("x", hourly(burst), 0))[0].Remaining)
}

// firstMaster returns which master of startCluster had a slot at first.
func firstMaster(slot int) int { return (slot*3 + 2) / 16384 }

// moveSlot moves a slot of a Cluster to another master, and the keys in it one by one. After
// the first key it calls halfway.
func moveSlot(t *testing.T, slot int, from, to *server, halfway func()) {
	t.Helper()
	source, target := from.client(), to.client()
	defer source.Close()
	defer target.Close()
	sourceID, targetID := source.Do(ctx, "cluster", "myid").Val(), target.Do(ctx, "cluster", "myid").Val()
	require.NoError(t, target.Do(ctx, "cluster", "setslot", slot, "importing", sourceID).Err())
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "migrating", targetID).Err())
	keys := source.ClusterGetKeysInSlot(ctx, slot, 100).Val()
	require.NotEmpty(t, keys)
	for i, key := range keys {
		require.NoError(t, source.Migrate(ctx, "127.0.0.1", fmt.Sprint(to.Port()), key, 0, 20*time.Second).Err())
		if i == 0 {
			halfway()
		}
	}
	require.NoError(t, target.Do(ctx, "cluster", "setslot", slot, "node", targetID).Err())
	require.NoError(t, source.Do(ctx, "cluster", "setslot", slot, "node", targetID).Err())
}
