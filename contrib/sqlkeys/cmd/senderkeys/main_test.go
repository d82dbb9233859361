package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// asCommand makes the test binary run the command instead of the tests.
const asCommand = "SENDERKEYS_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	testservers.Main(m)
}

// A shell runs the command on one database.
type shell struct {
	t      *testing.T
	source string
	env    map[string]string
}

func onBoth(t *testing.T, f func(s shell)) {
	for name, source := range map[string]func(*testing.T) string{
		"postgres": func(t *testing.T) string { return pgtest.URL(t) },
		"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "keys.db") },
	} {
		t.Run(name, func(t *testing.T) { f(shell{t, source(t), map[string]string{}}) })
	}
}

type result struct {
	code     int
	out, err string
}

func (s shell) with(in string, args ...string) result {
	var out, err bytes.Buffer
	a := app{in: strings.NewReader(in), out: &out, err: &err, env: s.getenv}
	code := a.run(context.Background(), args)
	return result{code, out.String(), err.String()}
}

func (s shell) getenv(name string) string {
	if name == "SENDERAUTH_DB" {
		return s.source
	}
	return s.env[name]
}

// process returns the command as a process of its own.
func (s shell) process(args ...string) *exec.Cmd { return process(s.t, s.source, args...) }

func process(t testing.TB, source string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1", "SENDERAUTH_DB="+source)
	return cmd
}

// issue makes a key and returns its ID.
func (s shell) issue(sender string) string {
	s.t.Helper()
	var issued struct {
		KeyID string `json:"key_id"`
	}
	require.NoError(s.t, json.Unmarshal([]byte(s.ok("key", "issue", "-sender", sender, "-json")), &issued))
	return issued.KeyID
}

// states returns the state of each key, the oldest first.
func (s shell) states() (states []string) {
	s.t.Helper()
	var keys []struct{ State string }
	require.NoError(s.t, json.Unmarshal([]byte(s.ok("key", "list", "-json")), &keys))
	for _, k := range keys {
		states = append(states, k.State)
	}
	return states
}

// ok runs a command that must succeed and print nothing to standard error.
func (s shell) ok(args ...string) string {
	s.t.Helper()
	r := s.with("", args...)
	require.Equal(s.t, result{0, r.out, ""}, r)
	return r.out
}

func (s shell) validate(c senderauth.Credentials) error {
	db, err := sqlkeys.OpenDB(s.source)
	require.NoError(s.t, err)
	defer db.Close()
	peppers, err := sqlkeys.ParsePeppers(s.env["SENDERAUTH_PEPPERS"])
	require.NoError(s.t, err)
	store, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{Peppers: peppers})
	require.NoError(s.t, err)
	defer store.Close()
	_, err = store.Validate(context.Background(), c)
	return err
}

func TestLifeOfAKey(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		require.Empty(t, s.ok("migrate"))
		const sender = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
		require.Equal(t, sender+"\n", s.ok("sender", "create", "-id", sender, "-limit", "default=200/1m:50", "--limit=users=blocked"))

		r := s.with("", "key", "issue", "-sender", sender, "-name", "web", "-env", "staging", "-expires", "90d")
		require.Zero(t, r.code)
		require.Regexp(t, `^SENT_SENDER_ID=`+sender+`\nSENT_API_KEY=[0-9a-f-]{36}\n$`, r.out)
		secret := r.out[len(r.out)-37 : len(r.out)-1]
		require.Regexp(t, `^key_[a-z2-7]{16} \(staging, expires [0-9TZ:-]+\)\. The key is not shown again\.\n$`, r.err)
		id := r.err[:20]
		pair := senderauth.Credentials{SenderID: sender, APIKey: secret}
		require.NoError(t, s.validate(pair))

		var listed []map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("key", "list", "-sender", sender, "-json")), &listed))
		require.Len(t, listed, 1)
		created, err := time.Parse(time.RFC3339, listed[0]["created_at"].(string))
		require.NoError(t, err)
		require.Equal(t, map[string]any{
			"sender_id": sender, "key_id": id, "state": "active", "name": "web", "environment": "staging", "format": "uuid",
			"scopes": []any{"*"}, "networks": nil,
			"created_at": listed[0]["created_at"], "expires_at": listed[0]["expires_at"], "last_used_at": nil,
		}, listed[0])
		expires, err := time.Parse(time.RFC3339, listed[0]["expires_at"].(string))
		require.NoError(t, err)
		require.WithinDuration(t, created.Add(90*24*time.Hour), expires, time.Minute)
		table := strings.Split(s.ok("key", "list"), "\n")
		require.Equal(t, "KEY SENDER STATE NAME ENVIRONMENT CREATED EXPIRES LAST USED SCOPES NETWORKS", strings.Join(strings.Fields(table[0]), " "))
		require.Equal(t, []string{id, sender, "active", "web", "staging"}, strings.Fields(table[1])[:5])
		require.Contains(t, s.ok("key", "show", id), "state        active\n")

		var rotated map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("key", "rotate", id, "-grace", "1h", "-format", "prefixed", "-prefix", "acme", "-json")), &rotated))
		require.Regexp(t, `^acme_[a-z2-7]{39}$`, rotated["api_key"])
		require.NoError(t, s.validate(pair))
		ending := strings.Split(s.ok("key", "list", "-expiring", "14d"), "\n")
		require.Len(t, ending, 3, "the header, the old key, and the end of its line")
		require.Equal(t, []string{id, sender, "retiring"}, strings.Fields(ending[1])[:3])
		ends, err := time.Parse(time.RFC3339, strings.Fields(ending[1])[6])
		require.NoError(t, err)
		require.WithinDuration(t, time.Now().Add(time.Hour), ends, time.Minute)
		require.Equal(t, 2, s.with("", "key", "list", "-expiring", "soon").code)
		require.Equal(t, 4, s.with("", "key", "rotate", id).code)

		s.ok("key", "disable", id)
		require.ErrorIs(t, s.validate(pair), senderauth.ErrInvalidKey)
		s.ok("key", "enable", id)
		s.ok("sender", "disable", sender)
		require.ErrorIs(t, s.validate(pair), senderauth.ErrInvalidSender)
		require.Contains(t, s.ok("sender", "list"), sender+"  disabled  default=200/1m0s:50 users=blocked  ")
		s.ok("sender", "enable", sender)
		require.Empty(t, s.ok("sender", "limit", sender, "-limit", "messages=10000/month@Europe/Berlin", "-limit", "users=5/day@UTC"))
		require.Contains(t, s.ok("sender", "list"), sender+"  active  messages=10000/month@Europe/Berlin users=5/day  ")
		require.Empty(t, s.ok("sender", "limit", sender, "-limit", "default=2000/1m:500", "-limit", "messages=unlimited"))
		require.Contains(t, s.ok("sender", "list"), sender+"  active  default=2000/1m0s:500 messages=unlimited  ")
		require.Empty(t, s.ok("sender", "limit", sender, "-none"))
		require.Contains(t, s.ok("sender", "list"), sender+"  active  -  ")

		question := `Revoke ` + id + ` "web" of sender ` + sender + ` for good? [y/N] `
		for _, answer := range []string{"", "n\n", "\n", "yess\n"} {
			require.Equal(t, result{1, "", question + "senderkeys: not confirmed: nothing was changed\n"}, s.with(answer, "key", "revoke", id))
		}
		require.NoError(t, s.validate(pair))
		require.Equal(t, result{0, "", question}, s.with("y\n", "key", "revoke", id))
		require.ErrorIs(t, s.validate(pair), senderauth.ErrInvalidKey)
		require.Equal(t, result{4, "", "senderkeys: key " + id + ": revoked\n"}, s.with("", "key", "revoke", id, "-yes"))
		s.ok("key", "revoke", rotated["key_id"].(string), "-yes")

		require.Equal(t, "HOUR  SENDER  KEY  OUTCOME  REQUESTS\n", s.ok("usage", "-sender", sender, "-since", "7d"))
		require.Equal(t, "[]\n", s.ok("usage", "-key", id, "-json"))
		var audit []map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("audit", "-json")), &audit))
		require.Len(t, audit, 13)
		all := s.ok("key", "list", "-json") + s.ok("audit") + s.ok("key", "show", id, "-json")
		require.NotContains(t, all, secret[:8])
	})
}

func TestUsage(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		id := s.issue(sender)
		db, err := sqlkeys.OpenDB(s.source)
		require.NoError(t, err)
		defer db.Close()
		store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
		require.NoError(t, err)
		defer store.Close()
		r, err := store.NewRecorder(sqlkeys.RecorderConfig{})
		require.NoError(t, err)
		for range 3 {
			r.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: id}})
		}
		require.NoError(t, r.Close(t.Context()))

		lines := strings.Split(s.ok("usage", "-key", id), "\n")
		require.Equal(t, []string{sender, id, "admitted", "3"}, strings.Fields(lines[1])[1:])
		var listed []map[string]any
		require.NoError(t, json.Unmarshal([]byte(s.ok("key", "list", "-json")), &listed))
		require.NotNil(t, listed[0]["last_used_at"])
	})
}

func TestPeppers(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.env["SENDERAUTH_PEPPERS"] = "MDEyMzQ1Njc4OWFiY2RlZg=="
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		r := s.with("", "key", "issue", "-sender", sender)
		pair := senderauth.Credentials{SenderID: sender, APIKey: r.out[len(r.out)-37 : len(r.out)-1]}
		require.NoError(t, s.validate(pair))
		s.env["SENDERAUTH_PEPPERS"] = ""
		require.ErrorIs(t, s.validate(pair), senderauth.ErrInvalidKey)
		s.env["SENDERAUTH_PEPPERS"] = "secret!"
		require.Equal(t, result{2, "", "senderkeys: SENDERAUTH_PEPPERS: pepper 0: invalid: not base64\n"}, s.with("", "key", "list"))
		s.env["SENDERAUTH_PEPPERS"] = "c2hvcnQ="
		require.Equal(t, result{2, "", "senderkeys: SENDERAUTH_PEPPERS[0]: invalid: 5 bytes, fewer than 16\n"}, s.with("", "key", "list"))
	})
}

func TestWrongUse(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		const nobody = "7a1de7b4-3a0e-4d6e-9c2b-000000000001"
		sender := strings.TrimSpace(s.ok("sender", "create"))
		for _, c := range []struct {
			args string
			code int
			err  string
		}{
			{"bogus", 2, `unknown command "bogus" for "senderkeys"`},
			{"key bogus", 2, `unknown command "bogus" for "senderkeys key"`},
			{"sender limit " + sender + " -limit default=0/1m", 2, `limit "0/1m": invalid: REQUESTS is 0, not in 1..1000000000`},
			{"sender limit " + sender + " -limit default=5/0s", 2, `limit "5/0s": invalid: PER is 0s, below a microsecond`},
			{"sender create -limit b=0/1m -limit a=5/0s", 2, `limit "5/0s": invalid: PER is 0s, below a microsecond` + "\n" + `limit "0/1m": invalid: REQUESTS is 0, not in 1..1000000000`},
			{"sender bogus", 2, `unknown command "bogus" for "senderkeys sender"`},
			{"key list -bogus", 2, `unknown flag: --bogus`},
			{"key issue", 2, `required flag(s) "sender" not set`},
			{"key show", 2, `senderkeys key show takes one KEYID, not 0 arguments`},
			{"sender limit " + sender, 2, `sender limit: invalid: give each limit with -limit, or -none`},
			{"sender limit " + sender + " -none -limit default=5/1m", 2, `sender limit: invalid: give each limit with -limit, or -none`},
			{"sender limit a b", 2, `senderkeys sender limit takes one SENDER, not 2 arguments`},
			{"key show key_aaaaaaaaaaaaaaaa", 3, `key key_aaaaaaaaaaaaaaaa: not found`},
			{"key revoke -yes key_aaaaaaaaaaaaaaaa", 3, `key key_aaaaaaaaaaaaaaaa: not found`},
			{"key disable " + nobody, 2, `key ID: invalid: not key_ and 16 characters`},
			{"sender disable " + nobody, 3, `sender ` + nobody + `: not found`},
			{"sender create -id me", 2, `sender "me": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{"sender create -id " + sender, 4, `sender ` + sender + `: exists already`},
			{"sender create -limit default", 2, `-limit "default": invalid: want NAME=VALUE, each name once`},
			{"sender create -limit default=5/month@Mars/Olympus", 2, `limit "5/month@Mars/Olympus": invalid: unknown time zone "Mars/Olympus": is it in the IANA database, and does this machine have that?`},
			{"sender create -limit default=many", 2, `limit "many": invalid: want REQUESTS/PER[:BURST], such as 200/1m:50, or unlimited, or blocked`},
			{"sender create -limit a=1/s -limit a=2/s", 2, `-limit "a=2/s": invalid: want NAME=VALUE, each name once`},
			{"key issue -sender " + nobody, 3, `sender ` + nobody + `: not found`},
			{"key issue -sender " + sender + " -expires soon", 2, `-expires "soon": invalid: want a duration such as 90d or 12h, a date such as 2027-01-31, or an RFC 3339 time`},
			{"key issue -sender " + sender + " -expires 2001-09-09T01:46:40Z", 2, `new key: invalid: the expiry 2001-09-09T01:46:40Z is in the past`},
			{"key issue -sender " + sender + " -expires 2001-09-09", 2, `new key: invalid: the expiry 2001-09-09T00:00:00Z is in the past`},
			{"key issue -sender " + sender + " -expires 2027-02-30", 2, `-expires "2027-02-30": invalid: want a duration such as 90d or 12h, a date such as 2027-01-31, or an RFC 3339 time`},
			{"key rotate key_aaaaaaaaaaaaaaaa -grace soon", 2, `-grace "soon": invalid: want a duration such as 90d or 12h`},
			{"key issue -sender " + sender + " -env moon", 2, `new key: invalid: environment "moon" is not one of development, staging and production`},
			{"key issue -sender " + sender + " -format hex", 2, `new key: invalid: format "hex" is not one of uuid and prefixed`},
			{"key rotate key_aaaaaaaaaaaaaaaa -grace -1h", 2, `rotate: invalid: the grace -1h0m0s is below 0`},
			{"key list -sender " + nobody, 3, `sender ` + nobody + `: not found`},
			{"key list -json -sender " + nobody, 3, `sender ` + nobody + `: not found`},
			{"usage -sender " + nobody, 3, `sender ` + nobody + `: not found`},
			{"usage -key key_aaaaaaaaaaaaaaaa", 3, `key key_aaaaaaaaaaaaaaaa: not found`},
			{"audit -sender " + nobody, 3, `sender ` + nobody + `: not found`},
			{"audit -key key_aaaaaaaaaaaaaaaa", 3, `key key_aaaaaaaaaaaaaaaa: not found`},
			{"key issue -format prefixed -prefix a_b -sender " + sender, 2, `-prefix "a_b": invalid: not 1 to 32 ASCII letters and digits`},
			{"completion tcsh", 2, `unknown command "tcsh" for "senderkeys completion"`},
			{"completion bash zsh", 2, `unknown command "zsh" for "senderkeys completion bash"`},
			{"help bogus", 2, `unknown command "bogus" for "senderkeys"`},
			{"help key bogus", 2, `unknown command "bogus" for "senderkeys key"`},
			{"audit -sender me", 2, `sender "me": invalid: not a UUID of 36 characters, or the nil or max UUID`},
			{"audit -key " + nobody, 2, `key ID: invalid: not key_ and 16 characters`},
			{"usage -since -7d", 2, `-since "-7d": invalid: it is in the future`},
			{"usage -since yesterday", 2, `-since "yesterday": invalid: want a duration such as 90d or 12h, a date such as 2027-01-31, or an RFC 3339 time`},
		} {
			require.Equal(t, result{c.code, "", "senderkeys: " + c.err + "\n"}, s.with("", strings.Fields(c.args)...), c.args)
		}
		require.Equal(t, "[]\n", s.ok("key", "list", "-json"), "nothing half-written")
	})
}

func TestDatabase(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		if strings.HasPrefix(s.source, "postgres") {
			require.Equal(t, result{1, "", "senderkeys: the schema is missing: migrate first\n"}, s.with("", "key", "list"))
			return
		}
		require.Equal(t, result{1, "", "senderkeys: stat " + s.source + ": no such file or directory\n"}, s.with("", "key", "list"))
		_, err := os.Stat(s.source)
		require.ErrorIs(t, err, os.ErrNotExist, "a mistyped path does not become a file")
		for source, want := range map[string]result{
			"":                         {2, "", "no database: give -db, or set SENDERAUTH_DB, to a PostgreSQL URL or the path of a SQLite file"},
			"mysql://u:hunter2@db/app": {2, "", `the database: invalid: the scheme "mysql" is not postgres, postgresql or file`},
			"host=db password=hunter2": {2, "", "the database: invalid: write PostgreSQL settings as postgres://USER:PASSWORD@HOST/DATABASE, and the path of a SQLite file that looks like them as file:PATH"},
			"postgres://u:hunter2":     {2, "", "the PostgreSQL URL: invalid: invalid port: is the password percent-encoded?"},
		} {
			s.source = source
			want.err = "senderkeys: " + want.err + "\n"
			require.Equal(t, want, s.with("", "migrate"))
			require.Equal(t, want, s.with("", "key", "list"))
		}
	})
}

func TestCompletion(t *testing.T) {
	s := shell{t: t}
	for _, name := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, s.ok("completion", name), "senderkeys")
	}
	require.Contains(t, s.with("", "__complete", "key", "issue", "-env", "").out, "staging\n")
}
