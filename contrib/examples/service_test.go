package examples_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

const pepper = "SENDERAUTH_PEPPERS=MDEyMzQ1Njc4OWFiY2RlZg=="

func startService(t *testing.T, db string, env ...string) *process {
	t.Helper()
	env = append([]string{"SENDERAUTH_DB=" + db, "SENDERAUTH_REDIS="}, env...)
	return (&process{Cmd: command("service", env, "-addr", "127.0.0.1:0")}).launch(t).ready(t)
}

// issue makes a sender and a key of it with senderkeys, as an operator does.
func issue(t *testing.T, db string, limits ...string) (id, key, keyID string) {
	t.Helper()
	id = uuid.NewString()
	args := []string{"sender", "create", "-id", id}
	for _, l := range limits {
		args = append(args, "-limit", l)
	}
	senderkeys(t, db, []string{pepper}, args...)
	var issued struct {
		APIKey string `json:"api_key"`
		KeyID  string `json:"key_id"`
	}
	out := senderkeys(t, db, []string{pepper}, "key", "issue", "-sender", id, "-json")
	require.NoError(t, json.Unmarshal([]byte(out), &issued))
	return id, issued.APIKey, issued.KeyID
}

// answer returns the status and the body of a response.
func (p *process) answer(t *testing.T, r request) string {
	t.Helper()
	res := p.do(t, r)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return strconv.Itoa(res.StatusCode) + " " + string(body)
}

// The life of a service: it needs no key for its probes and one for everything else, limits
// a sender, refuses a revoked key, and writes the usage when it is stopped.
func TestServiceOnSQLiteAndMemory(t *testing.T) {
	db := databases["sqlite"](t)
	p := startService(t, db, pepper)
	id, key, keyID := issue(t, db, "default=unlimited", "messages=2/1h")
	const messages = "POST /v1/messages"
	requireProbesAndRefusals(t, p, id, key, startService(t, db))
	for _, want := range []int{200, 200, 429} {
		res := p.do(t, request{target: messages, header: as(id, key)})
		require.Equal(t, want, res.StatusCode)
		require.Contains(t, res.Header.Get("RateLimit-Policy"), `"messages";q=2`)
	}
	require.Equal(t, "200 "+id+"\n", p.answer(t, request{target: contactsTarget, header: as(id, key)}), "the other limit has tokens")
	requireRevocationAndUsage(t, p, db, as(id, key), keyID, 5, 1)
}

// Redis keeps the limits, also for a second process.
func TestServiceOnPostgresAndRedis(t *testing.T) {
	db, url := databases["postgres"](t), redistest.URL(t)
	p := startService(t, db, pepper, "SENDERAUTH_REDIS="+url)
	id, key, keyID := issue(t, db, "default=unlimited", "messages=2/1h")
	requireProbesAndRefusals(t, p, id, key, startService(t, db))

	options, err := redis.ParseURL(url)
	require.NoError(t, err)
	client := redis.NewClient(options)
	defer client.Close()
	statuses := map[int]int64{}
	eventually(t, "Redis has the bucket, and it is empty", func() bool {
		res := p.do(t, request{target: "POST /v1/messages", header: as(id, key)})
		statuses[res.StatusCode]++
		n, err := client.Exists(t.Context(), "{senderauth:v1:"+id+"}:messages").Result()
		require.NoError(t, err)
		return n == 1 && res.StatusCode == http.StatusTooManyRequests
	})
	require.GreaterOrEqual(t, statuses[200], int64(2))
	require.LessOrEqual(t, statuses[200], int64(4), "the burst of Redis, and of the process if Redis was too slow at first")
	require.Len(t, statuses, 2)
	other := startService(t, db, pepper, "SENDERAUTH_REDIS="+url)
	eventually(t, "the other process refuses by the same bucket", func() bool {
		return other.do(t, request{target: "POST /v1/messages", header: as(id, key)}).StatusCode == http.StatusTooManyRequests
	})
	other.stop(t)
	requireRevocationAndUsage(t, p, db, as(id, key), keyID, 0, 0)
}

// requireProbesAndRefusals checks what a service answers without a key, and that
// unpeppered, a service without the pepper, refuses the key. It sends one request that is
// admitted.
func requireProbesAndRefusals(t *testing.T, p *process, id, key string, unpeppered *process) {
	t.Helper()
	require.Equal(t, "200 ", p.answer(t, request{target: "GET /healthz"}))
	require.Equal(t, "200 ", p.answer(t, request{target: "GET /readyz"}))
	for _, target := range []string{contactsTarget, "POST /v1/messages", "GET /", "GET /nope", "GET /readyz/", "GET //v1/../healthz"} {
		require.Equal(t, unauthorized("Header x-api-key not found"), p.whole(t, request{target: target}), target)
	}
	require.Equal(t, unauthorized("Invalid API credentials!"), p.whole(t, request{target: contactsTarget, header: as(id, otherKey)}))
	require.Equal(t, unauthorized("API key does not match sender ID"), p.whole(t, request{target: contactsTarget, header: as(otherSender, key)}))
	require.Equal(t, "200 "+id+"\n", p.answer(t, request{target: contactsTarget, header: as(id, key)}))
	require.Equal(t, unauthorized("Invalid API credentials!"), unpeppered.whole(t, request{target: contactsTarget, header: as(id, key)}))
}

// requireRevocationAndUsage revokes the key, stops the service, and reads the usage that it
// has written: at least so many requests as admitted, and as limited.
func requireRevocationAndUsage(t *testing.T, p *process, db string, header []string, keyID string, admitted, limited int64) {
	t.Helper()
	senderkeys(t, db, nil, "key", "revoke", "-yes", keyID)
	eventually(t, "the revoked key is refused, long before the cache's TTL ends", func() bool {
		res := p.do(t, request{target: contactsTarget, header: header})
		if res.StatusCode == http.StatusOK {
			admitted++
		}
		return res.StatusCode == http.StatusUnauthorized
	})
	p.stop(t)
	for _, line := range p.stderr {
		noKey(t, line, header[3])
	}
	store, _ := openStore(t, db)
	used := map[senderauth.Outcome]int64{}
	for _, u := range all(t, store.Usage(t.Context(), sqlkeys.UsageFilter{})) {
		require.Equal(t, keyID, u.KeyID)
		used[u.Outcome] += u.Requests
	}
	require.GreaterOrEqual(t, used[senderauth.Admitted], max(admitted, 1))
	require.GreaterOrEqual(t, used[senderauth.Limited], max(limited, 1))
}

// While the database is down, a service is alive and not ready, and it serves the keys that
// it knows.
func TestServiceIsNotReadyWithoutItsDatabase(t *testing.T) {
	server := pgtest.New(t)
	db := server.URL(t)
	p := startService(t, db, pepper)
	id, key, keyID := issue(t, db)
	contacts := request{target: contactsTarget, header: as(id, key)}
	eventually(t, "the key is known", func() bool { return p.do(t, contacts).StatusCode == http.StatusOK })
	// A change that arrives says that the feed has begun: it purges the cache when it does.
	senderkeys(t, db, nil, "key", "disable", keyID)
	eventually(t, "the key is refused", func() bool { return p.do(t, contacts).StatusCode == http.StatusUnauthorized })
	senderkeys(t, db, nil, "key", "enable", keyID)
	eventually(t, "the key is known again", func() bool { return p.do(t, contacts).StatusCode == http.StatusOK })
	require.NoError(t, server.Kill())
	p.awaitLog(t, "sqlkeys: the feed of changes is lost")
	eventually(t, "the service is not ready", func() bool {
		return p.answer(t, request{target: "GET /readyz"}) == "503 the key store does not answer\n"
	})
	require.Equal(t, "200 ", p.answer(t, request{target: "GET /healthz"}))
	require.Equal(t, "200 "+id+"\n", p.answer(t, contacts))
	require.NoError(t, server.Start())
	eventually(t, "the service is ready again", func() bool {
		return p.answer(t, request{target: "GET /readyz"}) == "200 "
	})
	p.stop(t)
}

// A mistake is one line of JSON without a secret, and exit status 1.
func TestMistakesOfAService(t *testing.T) {
	const free = "-addr=127.0.0.1:0"
	db := "SENDERAUTH_DB=" + databases["sqlite"](t)
	for _, c := range []struct {
		env, args []string
		want      string
	}{
		{nil, []string{"-port", "8080"}, "flag provided but not defined: -port"},
		{nil, []string{"-instances", "three"}, `invalid value "three" for flag -instances: parse error`},
		{[]string{db}, []string{"-addr", "127.0.0.1"}, "listen tcp: address 127.0.0.1: missing port in address"},
		{[]string{db, "SENDERAUTH_PEPPERS=hunter2"}, []string{free}, "sqlkeys: pepper 0: invalid: not base64"},
		{[]string{db, "SENDERAUTH_REDIS=http://:hunter2@localhost"}, []string{free}, "SENDERAUTH_REDIS is not the URL of a Redis"},
		{[]string{db, "SENDERAUTH_REDIS=redis://localhost:1"}, []string{free, "-instances", "0"}, "redislimit: Config.Instances is 0: how many instances share the limits?"},
		{[]string{"SENDERAUTH_DB=mysql://u:hunter2@db"}, []string{free}, `sqlkeys: the database: invalid: the scheme "mysql" is not postgres, postgresql or file`},
	} {
		var line struct{ Level, Msg, Error string }
		out := mistake(t, command("service", c.env, c.args...))
		require.Equal(t, 1, strings.Count(out, "\n"), out)
		require.NoError(t, json.Unmarshal([]byte(out), &line), out)
		require.Equal(t, "ERROR", line.Level)
		require.Equal(t, "the service ended", line.Msg)
		require.Equal(t, c.want, line.Error)
		require.NotContains(t, out, "hunter2")
	}
}

func TestHelpOfAService(t *testing.T) {
	out, err := command("service", nil, "-h").Output()
	require.NoError(t, err)
	require.Regexp(t, `(?s)^  -addr .*\n  -instances .*\n$`, string(out))
}

// The file is short, and hides nothing in a package that a reader could not import.
func TestServiceIsOneFile(t *testing.T) {
	files, err := os.ReadDir("service")
	require.NoError(t, err)
	require.Len(t, files, 1)
	source, err := os.ReadFile("service/main.go")
	require.NoError(t, err)
	require.LessOrEqual(t, strings.Count(string(source), "\n"), 150)
	require.NotContains(t, string(source), "/internal/")
}
