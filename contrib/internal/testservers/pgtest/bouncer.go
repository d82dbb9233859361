package pgtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/stretchr/testify/require"
)

// Bouncer starts a PgBouncer in front of all databases of s and returns its address as
// host:port. Each setting is a line of its configuration, such as pool_mode = session.
// It lets in the superuser only.
func (s *Server) Bouncer(t testing.TB, settings ...string) (addr string) {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		program, err = exec.LookPath("/usr/sbin/pgbouncer") // only root has it in PATH
	}
	if err != nil {
		testservers.Missing(t, "pgbouncer is not installed")
	}
	port, err := testservers.FreePort()
	require.NoError(t, err)
	users, config, log := filepath.Join(s.dir, fmt.Sprintf("users-%d", port)), filepath.Join(s.dir, fmt.Sprintf("bouncer-%d.ini", port)), filepath.Join(s.dir, fmt.Sprintf("bouncer-%d.log", port))
	require.NoError(t, os.WriteFile(users, []byte(`"postgres" ""`+"\n"), 0o644))
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `[databases]
* = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
%s
`, s.port, port, users, strings.Join(settings, "\n")), 0o644))
	p, err := testservers.Start(testservers.Command{Args: []string{program, config}, Dir: s.dir, Log: log, User: s.user, End: "KILL"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.End("")) })
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}, 30*time.Second, 10*time.Millisecond, "pgbouncer does not start: see %s", log)
	return addr
}
