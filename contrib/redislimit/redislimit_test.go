package redislimit_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

func TestNew(t *testing.T) {
	good := redis.NewClient(&redis.Options{ContextTimeoutEnabled: true})
	defer good.Close()
	for _, c := range []struct {
		client redis.UniversalClient
		cfg    redislimit.Config
		want   []string
	}{
		{nil, redislimit.Config{}, []string{"the client is nil", "Config.Instances is 0"}},
		{(*redis.Client)(nil), redislimit.Config{Instances: -1}, []string{"nil *redis.Client", "Config.Instances is -1"}},
		{(*redis.ClusterClient)(nil), redislimit.Config{Instances: 1}, []string{"nil *redis.ClusterClient"}},
		{(*redis.Ring)(nil), redislimit.Config{Instances: 1}, []string{"nil *redis.Ring"}},
		{redis.NewClient(&redis.Options{}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewFailoverClient(&redis.FailoverOptions{MasterName: "m", SentinelAddrs: []string{"localhost:1"}}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"localhost:1"}}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{redis.NewRing(&redis.RingOptions{}), redislimit.Config{Instances: 1}, []string{"ContextTimeoutEnabled"}},
		{good, redislimit.Config{Instances: 1, CountInstances: func() int { return 1 }}, []string{"both set"}},
		{good, redislimit.Config{FailClosed: true, Timeout: -1, ProbeEvery: -1, Failures: -1, Prefix: "a}"}, []string{
			"Config.Timeout -1ns", "Config.ProbeEvery -1ns", "Config.Failures -1", `Config.Prefix "a}"`}},
	} {
		l, err := redislimit.New(c.client, c.cfg)
		require.Nil(t, l)
		for _, want := range c.want {
			require.ErrorContains(t, err, want)
		}
		require.Len(t, strings.Split(err.Error(), "\n"), len(c.want))
	}
}

func TestClose(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		l := open(t, shared(t), redislimit.Config{Lease: lease, Timeout: patient})
		d := startLoad(l, 8, charge("x", hourly(1000), 1))
		eventually(t, func() error {
			if d.admitted.Load() < 20 {
				return errors.New("not yet")
			}
			return nil
		})
		require.Zero(t, d.failed.Load())
		require.NoError(t, l.Close())
		require.NoError(t, l.Close())
		d.stop()
		_, err := l.Take(ctx, "a", []senderauth.Charge{charge("x", hourly(10), 1)})
		require.EqualError(t, err, "redislimit: the Limiter is closed")
	})
}
