package redistest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

func do(s *redistest.Server, command string, patience time.Duration) (string, error) {
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, command+"\r\n"); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

const patience = 20 * time.Second

func TestURLIsThatOfOneSharedServer(t *testing.T) {
	require.NotEmpty(t, redistest.URL(t))
	require.Equal(t, redistest.URL(t), redistest.URL(t))
}

func TestServerEndsAndReturns(t *testing.T) {
	s := redistest.New(t, "--databases", "1")
	require.Equal(t, "redis://"+s.Addr(), s.URL())
	answer, err := do(s, "SELECT 1", patience)
	require.NoError(t, err)
	require.Equal(t, "-ERR DB index is out of range\r\n", answer, "--databases 1 has no effect")
	for _, end := range []func() error{s.Stop, s.Kill} {
		answer, err = do(s, "SETNX key value", patience)
		require.NoError(t, err)
		require.Equal(t, ":1\r\n", answer, "the server starts empty")
		require.NoError(t, end())
		require.NoError(t, end(), "ending it twice is no error")
		_, err = do(s, "PING", patience)
		require.Error(t, err)
		require.NoError(t, s.Start())
	}
	require.NoError(t, s.Restart())
	answer, err = do(s, "PING", patience)
	require.NoError(t, err)
	require.Equal(t, "+PONG\r\n", answer)
}

func TestServerPauses(t *testing.T) {
	s := redistest.New(t)
	require.NoError(t, s.Pause())
	_, err := do(s, "PING", 50*time.Millisecond)
	require.True(t, errors.Is(err, os.ErrDeadlineExceeded), "%v", err)
	require.NoError(t, s.Resume())
	answer, err := do(s, "PING", patience)
	require.NoError(t, err)
	require.Equal(t, "+PONG\r\n", answer)
	require.NoError(t, s.Pause())
	require.NoError(t, s.Kill(), "a paused server can be killed")
}
