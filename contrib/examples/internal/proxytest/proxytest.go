// Package proxytest runs proxies with the configurations that the examples show.
package proxytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

// A Proxy is a running proxy that listens with and without TLS.
type Proxy struct {
	HTTP, HTTPS string // URLs
	client      *http.Client
}

// around has, for each program, what a machine's own configuration has around the one that
// is shown, and the command line.
var around = map[string]struct {
	config  func(dir, shown string) string
	command func(dir, file string) []string
}{
	"nginx": {
		func(dir, shown string) string {
			user := ""
			if os.Getuid() == 0 {
				user = "user root;\n"
			}
			temp := ""
			for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temp += fmt.Sprintf("%s_temp_path %s/%s;\n", kind, dir, kind)
			}
			return fmt.Sprintf("%sdaemon off;\npid %s/pid;\nevents {}\nhttp {\naccess_log off;\n%s%s\n}\n", user, dir, temp, shown)
		},
		func(dir, file string) []string { return []string{"nginx", "-p", dir, "-c", file, "-e", "stderr"} },
	},
	"haproxy": {
		func(_, shown string) string { return shown },
		func(dir, file string) []string { return []string{"haproxy", "-db", "-C", dir, "-f", file} },
	},
	"apache2": {
		func(dir, shown string) string {
			var modules strings.Builder
			for _, name := range []string{"mpm_event", "authz_core", "headers", "proxy", "proxy_http", "socache_shmcb", "ssl"} {
				fmt.Fprintf(&modules, "LoadModule %s_module /usr/lib/apache2/modules/mod_%[1]s.so\n", name)
			}
			return fmt.Sprintf("ServerRoot %s\nServerName localhost\nPidFile pid\nDefaultRuntimeDir %[1]s\nMutex file:%[1]s default\nErrorLog /dev/stderr\nUser www-data\nGroup www-data\n%s%s", dir, modules.String(), shown)
		},
		func(_, file string) []string { return []string{"apache2", "-DFOREGROUND", "-f", file} },
	},
}

// Start runs a program with the shown configuration, in which the addresses of files are
// replaced by those of servers: "127.0.0.1:8081" by that of the upstream, for example. Other
// files are those that the configuration loads.
func Start(t *testing.T, program, config string, addrs map[string]string, others ...string) *Proxy {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		testservers.Missing(t, program+" is not installed")
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o755)) // Apache's workers are another user
	roots := certificate(t, dir)
	plain, encrypted := freeAddr(t), freeAddr(t)
	replacements := []string{"127.0.0.1:8080", plain, "127.0.0.1:8443", encrypted}
	for from, to := range addrs {
		replacements = append(replacements, from, to)
	}
	replace := strings.NewReplacer(replacements...)
	shown := func(file string) string {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for from := range addrs {
			require.True(t, len(others) > 0 || strings.Contains(string(text), from), "%s does not name %s", file, from)
		}
		return replace.Replace(string(text))
	}
	for _, file := range others {
		require.NoError(t, os.WriteFile(filepath.Join(dir, filepath.Base(file)), []byte(shown(file)), 0o644))
	}
	files := strings.NewReplacer(" cert.pem", " "+dir+"/cert.pem", " key.pem", " "+dir+"/key.pem", " both.pem", " "+dir+"/both.pem")
	a, file := around[program], filepath.Join(dir, "config")
	require.NoError(t, os.WriteFile(file, []byte(a.config(dir, files.Replace(shown(config)))), 0o644))
	log := filepath.Join(dir, "log")
	process, err := testservers.Start(testservers.Command{Args: a.command(dir, file), Log: log, Dir: dir, End: "TERM"})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, process.End(""))
		if t.Failed() {
			text, _ := os.ReadFile(log)
			t.Logf("%s wrote:\n%s", program, text)
		}
	})
	for _, addr := range []string{plain, encrypted} {
		await(t, addr, log)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &Proxy{HTTP: "http://" + plain, HTTPS: "https://" + encrypted, client: &http.Client{Transport: transport}}
}

// Do sends a request through the proxy and returns the response and its body.
func (p *Proxy) Do(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := p.client.Do(r)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res, string(body)
}

// Request returns a request with header lines: name, value, name, value.
func Request(t *testing.T, method, url, body string, lines ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(lines); i += 2 {
		r.Header[lines[i]] = append(r.Header[lines[i]], lines[i+1])
	}
	return r
}

// Serve serves h on a free port until the test ends, and returns its address.
func Serve(t *testing.T, h http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", freeAddr(t))
	require.NoError(t, err)
	server := &http.Server{Handler: h}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return listener.Addr().String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := testservers.FreePort()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func await(t *testing.T, addr, log string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			t.Fatalf("%v\n%s", err, text)
		}
	}
}

// certificate writes a certificate for 127.0.0.1 and its key, and returns its roots.
func certificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "127.0.0.1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	for name, text := range map[string][]byte{"cert.pem": cert, "key.pem": private, "both.pem": append(cert[:len(cert):len(cert)], private...)} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM(cert))
	return roots
}
