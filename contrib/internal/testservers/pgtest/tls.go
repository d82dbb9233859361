package pgtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// RequireTLS makes the server ask everybody but its superuser for a password, over TLS.
// Its certificate is for localhost. RequireTLS returns the file of the authority.
func (s *Server) RequireTLS(t testing.TB) (ca string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the tests"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	own := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
	}
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	ca = filepath.Join(t.TempDir(), "ca.crt")
	writePEM(t, ca, "CERTIFICATE", sign(t, authority, authority, key))
	files := []string{filepath.Join(s.data(), "server.crt"), filepath.Join(s.data(), "server.key")}
	writePEM(t, files[0], "CERTIFICATE", sign(t, own, authority, key))
	writePEM(t, files[1], "EC PRIVATE KEY", secret)
	if s.user != nil {
		for _, file := range files {
			require.NoError(t, os.Chown(file, int(s.user.Uid), int(s.user.Gid)))
		}
	}

	hba := filepath.Join(s.data(), "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(hba, []byte(strings.Join([]string{
		"host all postgres all trust",
		"hostssl all all all scram-sha-256",
		"hostnossl all all all reject",
		string(rules),
	}, "\n")), 0o600))
	s.Exec(t, `ALTER SYSTEM SET ssl = on`)
	require.NoError(t, s.Restart())
	return ca
}

func sign(t testing.TB, c, by *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), key)
	require.NoError(t, err)
	return der
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}
