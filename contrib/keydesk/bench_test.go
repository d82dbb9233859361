package keydesk_test

import (
	"fmt"
	"net/http/httptest"
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
