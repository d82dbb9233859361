package redislimit_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/senderauthtest"
)

func TestSuite(t *testing.T) {
	suite := func(c redis.UniversalClient) func(t *testing.T) {
		return func(t *testing.T) {
			inBoth(t, func(t *testing.T, lease time.Duration) {
				t.Parallel()
				l := open(t, c, redislimit.Config{FailClosed: true, Timeout: patient, Lease: lease})
				senderauthtest.TestLimiter(t, senderauthtest.LimiterConfig{
					New:          func(*testing.T) senderauth.Limiter { return l },
					Tolerance:    time.Microsecond, // the resolution of the clock of Redis
					MayAdmitLess: lease > 0,
				})
			})
		}
	}
	t.Run("single", suite(shared(t)))
	cluster, _ := startCluster(t)
	t.Run("cluster", suite(cluster))
	// Not every system has a package for it.
	if _, err := exec.LookPath("valkey-server"); err == nil {
		c := startServer(t, "valkey-server").client()
		t.Cleanup(func() { c.Close() })
		t.Run("valkey", suite(c))
	}
}
