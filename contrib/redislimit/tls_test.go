package redislimit_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/stretchr/testify/require"
)

// startTLS starts a server that also listens with TLS, at addr. Its certificate is for
// localhost, and roots trusts it.
func startTLS(t *testing.T) (s *server, addr string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return file
	}
	port, err := testservers.FreePort()
	require.NoError(t, err)
	s = startServer(t, "redis-server", "--tls-port", strconv.Itoa(port), "--tls-auth-clients", "no",
		"--tls-cert-file", write("crt", "CERTIFICATE", der), "--tls-key-file", write("key", "EC PRIVATE KEY", secret))
	own, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots = x509.NewCertPool()
	roots.AddCert(own)
	return s, fmt.Sprintf("127.0.0.1:%d", port), roots
}

// secured returns a client with TLS, as a user with only the documented rights, of a server
// that is half a round trip away.
func secured(t *testing.T, away time.Duration) *redis.Client {
	s, addr, roots := startTLS(t)
	restrict(t, s, rights...)
	var half atomic.Int64
	half.Store(int64(away))
	c := redis.NewClient(&redis.Options{
		Addr: distant(t, addr, &half), Username: "limiter", Password: "secret", ContextTimeoutEnabled: true,
		TLSConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"},
	})
	t.Cleanup(func() { c.Close() })
	return c
}

// With TLS, a password and only the documented rights, the limiter connects to a distant
// Redis if Config.Timeout covers a round trip.
func TestConnectsWithTLS(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		for _, e := range []struct{ away, timeout time.Duration }{
			{time.Millisecond, 0},
			{5 * time.Millisecond, 0},
			{12 * time.Millisecond, 0},
			{25 * time.Millisecond, 200 * time.Millisecond},
			{100 * time.Millisecond, 800 * time.Millisecond},
		} {
			t.Run(e.away.String(), func(t *testing.T) {
				t.Parallel()
				l := open(t, secured(t, e.away), redislimit.Config{Lease: lease, Timeout: e.timeout, Instances: 2})
				wantShared(t, l)
			})
		}
	})
}

// If a round trip takes longer than Config.Timeout, the limiter decides locally and says so.
func TestRoundTripAboveTimeoutIsDecidedLocally(t *testing.T) {
	inBoth(t, func(t *testing.T, lease time.Duration) {
		var m modes
		l := open(t, secured(t, 100*time.Millisecond), redislimit.Config{Lease: lease, Instances: 2, OnMode: m.add})
		for range 10 {
			require.Equal(t, 5, take(t, l, "a", charge("x", hourly(10), 0))[0].Remaining)
		}
		require.NoError(t, m.are(redislimit.Fallback))
	})
}
