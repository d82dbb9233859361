package readme_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func monthly() (cfg senderauth.Config, err error) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	cfg.Limits = map[string]senderauth.Limit{
		"default":  {Requests: 200, Per: time.Minute, Burst: 50},
		"messages": senderauth.PerMonth(10_000, berlin), // or PerDay; nil means UTC
	}
	return cfg, err
}

func chargeBoth(guard *senderauth.Guard, mux *http.ServeMux) {
	mux.Handle("POST /v1/messages", guard.Charging("default", "messages").Wrap(send))
}

// On synctest's clock it is January 2000, which ends in Berlin an hour before it does in UTC.
func TestAllowanceOfTheReadme(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, err := monthly()
		require.NoError(t, err)
		guard, err := senderauth.New(acme(t), cfg)
		require.NoError(t, err)
		mux, ok := http.NewServeMux(), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
		send = ok
		chargeBoth(guard, mux)
		require.Equal(t, 200, sent(mux, httptest.NewRequest("POST", "/v1/messages", nil)).Code)
		rest := guard.Charging("messages").Costing(func(*http.Request) int { return 9_999 })
		require.Equal(t, 200, asAcme(rest.Wrap(ok), "/").Code)
		w := sent(mux, httptest.NewRequest("POST", "/v1/messages", nil))
		require.Equal(t, `{"status":429,"title":"Too Many Requests","detail":"Allowance exceeded. Please retry after 2674800 seconds.","type":"about:blank"}`, w.Body.String())
		require.Equal(t, "2674800", w.Header().Get("Retry-After"))
		require.Equal(t, `"default";r=49;t=1, "messages";r=0;t=2674800`, w.Header().Get("RateLimit"))
		require.Equal(t, `"default";q=50;w=15, "messages";q=10000;w=2678400`, w.Header().Get("RateLimit-Policy"))
	})
}
