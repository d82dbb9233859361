package examples_test

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestObservedExportsTracesAndMetrics(t *testing.T) {
	id, key := newPair()
	p := start(t, "observed", pairOf(id, key))
	require.Equal(t, 200, p.do(t, request{target: "GET /v1/contacts", header: as(id, key)}).StatusCode)
	require.Equal(t, 401, p.do(t, request{target: "GET /v1/contacts"}).StatusCode)
	body, err := io.ReadAll(p.do(t, request{target: "GET /metrics"}).Body)
	require.NoError(t, err)
	for _, name := range []string{
		`senderauth_requests_total{limit="default",`, `outcome="missing_key"`, "senderauth_decision_duration_seconds_bucket{le=",
		"senderauth_errors_total{", "senderauth_cache_lookups_total{", "senderauth_cache_evictions_total ", "senderauth_cache_entries{",
		"senderauth_limiter_fallback ", "senderauth_recorder_dropped_total ", `senderauth_outcome="missing_key"`,
	} {
		require.True(t, strings.Contains(string(body), name), "/metrics has no %s", name)
	}
	require.NotContains(t, string(body), id, "no sender in a metric")
	p.stop(t)
	var lookup, outcome bool
	for line := range strings.Lines(p.stdout.String()) {
		lookup = lookup || strings.Contains(line, `"Name":"senderauth.lookup"`)
		outcome = outcome || strings.Contains(line, `"Key":"senderauth.outcome"`)
		noKey(t, line, key)
	}
	require.True(t, lookup, "a span of the lookup")
	require.True(t, outcome, "the outcome on the span of the request")
}

func TestObservedCountsTheKeysThatExpire(t *testing.T) {
	id, key := newPair()
	db := filepath.Join(t.TempDir(), "keys.db")
	senderkeys(t, db, nil, "migrate")
	senderkeys(t, db, nil, "sender", "create", "-id", id)
	senderkeys(t, db, nil, "key", "issue", "-sender", id, "-expires", "6d")
	p := start(t, "observed", pairOf(id, key), "-db", db)
	require.Eventually(t, func() bool {
		body, err := io.ReadAll(p.do(t, request{target: "GET /metrics"}).Body)
		require.NoError(t, err)
		expiring := map[string]bool{}
		for line := range strings.Lines(string(body)) {
			if strings.HasPrefix(line, "senderauth_keys_expiring{") {
				expiring[strings.TrimSpace(line)] = true
			}
		}
		return len(expiring) == 3 && expiring[`senderauth_keys_expiring{days="1"} 0`] &&
			expiring[`senderauth_keys_expiring{days="7"} 1`] && expiring[`senderauth_keys_expiring{days="30"} 1`]
	}, patience, 10*time.Millisecond)
}
