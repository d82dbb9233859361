package senderclient

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// A header that is kept is sent again for the same fields only, and is not the caller's.
func TestKeptHeaderIsThatOfItsFields(t *testing.T) {
	s := headers{shared: true}
	with := func(h http.Header, key string) http.Header {
		out, err := s.with(h, "sender", key)
		require.NoError(t, err)
		return out
	}
	five := http.Header{"A": {"1"}, "B": {"2"}, "C": {"3"}, "D": {"4"}, "E": {"5"}}
	first := with(five, "key")
	require.Equal(t, http.Header{"A": {"1"}, "B": {"2"}, "C": {"3"}, "D": {"4"}, "E": {"5"}, "X-Sender-Id": {"sender"}, "X-Api-Key": {"key"}}, first)
	require.Equal(t, http.Header{"A": {"1"}, "X-Sender-Id": {"sender"}, "X-Api-Key": {"key"}}, with(http.Header{"A": {"1"}}, "key"))
	require.Equal(t, []string{"another"}, with(five, "another")["X-Api-Key"])

	five["A"][0] = "later"
	require.Equal(t, []string{"1"}, first["A"])
	require.Equal(t, []string{"later"}, with(five, "key")["A"])
}
