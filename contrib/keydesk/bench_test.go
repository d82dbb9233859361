package keydesk_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func BenchmarkKeysPage1000(b *testing.B) {
	s := newSite(b, keydesk.Config{})
	keys := make([]sqlkeys.NewKey, 1000)
	for i := range keys {
		keys[i] = sqlkeys.NewKey{SenderID: senderA, Name: fmt.Sprintf("worker %d", i), ExpiresAt: time.Now().Add(90 * 24 * time.Hour)}
	}
	_, err := s.IssueAll(b.Context(), keys)
	require.NoError(b, err)
	for b.Loop() {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(senderA, "")
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		require.Equal(b, 200, w.Code)
		b.SetBytes(int64(w.Body.Len()))
	}
}

// The million keys take about two minutes to make.
func BenchmarkOperatorsListOfAMillionKeys(b *testing.B) {
	s := newSite(b, keydesk.Config{})
	for range 200 {
		x, err := s.CreateSender(b.Context(), sqlkeys.NewSender{})
		require.NoError(b, err)
		_, err = s.db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
			INSERT INTO sqlkeys_keys (id, sender_id, digest, format, name, environment, created_at)
			SELECT 'key_' || lower(hex(randomblob(8))), ?, randomblob(32), 'uuid', 'worker ' || i, 'production', ? + i FROM n`,
			x.ID, time.Now().UnixMilli())
		require.NoError(b, err)
	}
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		page := s.get(b, operator, "/")
		took = append(took, time.Since(start))
		require.Equal(b, 200, page.StatusCode)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}
