package alerts_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

func TestMain(m *testing.M) { testservers.Main(m) }

// binary returns the path of a program of Prometheus.
func binary(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testservers.Missing(t, name+" is not installed (Debian: apt-get install prometheus)")
	}
	return path
}

func TestRulesAlertWhenTheyShould(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		out, err := exec.Command(binary(t, "promtool"), args...).CombinedOutput()
		require.NoError(t, err, "promtool %s:\n%s", strings.Join(args, " "), out)
	}
}

func TestEveryRuleHasATest(t *testing.T) {
	tests := read(t, "rules_test.yml")
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(read(t, "rules.yml"), -1) {
		require.Regexp(t, `alertname: `+alert[1]+`\s+exp_alerts:\s+- exp_labels`, tests)
	}
}

type drops struct{}

func (drops) Dropped() uint64 { return 1 }

type expiring struct{}

func (expiring) Expiring(time.Duration) int { return 1 }

const id, key = "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11", "0b9d3c1e-6f52-4c8a-b1d7-2e4f6a8c0d01"

// metrics serves the metrics of a guard that admits, limits and refuses requests.
func metrics(t *testing.T) *httptest.Server {
	t.Helper()
	registry := prom.NewRegistry()
	exporter, err := prometheus.New(prometheus.WithRegisterer(registry))
	require.NoError(t, err)
	telemetry, err := otelsender.New(otelsender.Config{MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter))})
	require.NoError(t, err)
	static, err := senderauth.Static(senderauth.Credentials{SenderID: id, APIKey: key})
	require.NoError(t, err)
	cache, err := senderauth.NewCache(telemetry.Validator(static), senderauth.CacheConfig{})
	require.NoError(t, err)
	telemetry.ObserveCache(cache)
	telemetry.ObserveRecorder(drops{})
	telemetry.ObserveKeys(expiring{})
	hostile := `"quoted" \{}`
	guard, err := senderauth.New(cache, senderauth.Config{Observe: telemetry.Observe, Limits: map[string]senderauth.Limit{
		"default": senderauth.PerMinute(3), hostile: senderauth.PerMinute(1), "tried": senderauth.PerMinute(1),
	}, DryRun: []string{"tried"}})
	require.NoError(t, err)
	send := func(g *senderauth.Guard, key string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("x-sender-id", id)
		r.Header.Set("x-api-key", key)
		g.Wrap(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
	}
	scraped := promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for range 5 { // at each scrape, so that rates are above 0
			send(guard, key)
			send(guard.Charging(hostile), key)
			send(guard.Charging("tried"), key)
			send(guard, id)
		}
		scraped.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

var name = regexp.MustCompile(`senderauth_[a-z_]+`)

func TestExporterHasEveryNameOfTheRulesAndTheDashboard(t *testing.T) {
	res, err := http.Get(metrics(t).URL)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, res.Body.Close())
	require.NoError(t, err)
	require.Contains(t, string(body), `limit="\"quoted\" \\{}"`)
	for _, file := range []string{"rules.yml", "dashboard.json"} {
		names := name.FindAllString(read(t, file), -1)
		require.NotEmpty(t, names)
		for _, n := range names {
			require.Contains(t, string(body), "\n"+n+"{", "%s uses %s", file, n)
		}
	}
	check := exec.Command(binary(t, "promtool"), "check", "metrics")
	check.Stdin = strings.NewReader(string(body))
	out, err := check.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
}

func TestPrometheusAnswersEveryPanel(t *testing.T) {
	var board dashboard
	require.NoError(t, json.Unmarshal([]byte(read(t, "dashboard.json")), &board))
	require.NotEmpty(t, board.Panels)
	server := startPrometheus(t, metrics(t).URL)
	variables := strings.NewReplacer("$job", ".+", "$__rate_interval", "1m")
	for _, panel := range board.Panels {
		require.NotEmpty(t, panel.Targets, panel.Title)
		for _, target := range panel.Targets {
			require.Eventually(t, func() bool { return server.query(t, variables.Replace(target.Expr)) > 0 },
				time.Minute, 50*time.Millisecond, "%s is empty: %s", panel.Title, target.Expr)
		}
	}
}

// A prometheusServer is a running Prometheus.
type prometheusServer struct{ url string }

// startPrometheus starts a Prometheus that scrapes a URL twice a second.
func startPrometheus(t *testing.T, target string) prometheusServer {
	t.Helper()
	program, dir := binary(t, "prometheus"), t.TempDir()
	rules, err := filepath.Abs("rules.yml")
	require.NoError(t, err)
	config := fmt.Sprintf(`global: {scrape_interval: 500ms, scrape_timeout: 500ms}
rule_files: [%q]
scrape_configs: [{job_name: api, metrics_path: /, static_configs: [{targets: [%q]}]}]
`, rules, strings.TrimPrefix(target, "http://"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	port, err := testservers.FreePort()
	require.NoError(t, err)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	log := filepath.Join(dir, "log")
	process, err := testservers.Start(testservers.Command{
		Args: []string{program, "--config.file=" + filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + addr},
		Dir:  dir, Log: log, End: "TERM",
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			lines, _ := os.ReadFile(log)
			t.Logf("%s", lines)
		}
		require.NoError(t, process.End(""))
	})
	return prometheusServer{"http://" + addr}
}

// query returns how many time series of the answer have a number; 0 until the server is ready.
func (p prometheusServer) query(t *testing.T, expr string) int {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", p.url+"/api/v1/query?query="+url.QueryEscape(expr), nil)
	if err != nil {
		return 0
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if json.NewDecoder(res.Body).Decode(&answer) != nil {
		return 0
	}
	series := 0
	for _, r := range answer.Data.Result {
		if r.Value[1] != "NaN" {
			series++
		}
	}
	return series
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	require.NoError(t, err)
	return string(b)
}
