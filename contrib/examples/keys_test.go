package examples_test

import (
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

// databases create an empty database of each kind.
var databases = map[string]func(t *testing.T) string{
	"sqlite":   func(t *testing.T) string { return filepath.Join(t.TempDir(), "keys.db") },
	"postgres": func(t *testing.T) string { return pgtest.URL(t) },
}

func onEachDatabase(t *testing.T, f func(t *testing.T, db string)) {
	for kind, database := range databases {
		t.Run(kind, func(t *testing.T) { f(t, database(t)) })
	}
}

// openStore opens the database while a program uses it, as an operator does.
func openStore(t *testing.T, source string) (*sqlkeys.Store, *sql.DB) {
	t.Helper()
	db, err := sqlkeys.OpenDB(source)
	require.NoError(t, err)
	store, err := sqlkeys.Open(t.Context(), db, sqlkeys.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, store.Close())
		require.NoError(t, db.Close())
	})
	return store, db
}

// senderkeys runs the command senderkeys on a database and returns its output.
func senderkeys(t *testing.T, db string, env []string, args ...string) string {
	t.Helper()
	out, err := command("senderkeys", env, append(args, "-db", db)...).Output()
	require.NoError(t, err)
	return string(out)
}

func all[T any](t *testing.T, seq func(func(T, error) bool)) (all []T) {
	t.Helper()
	for v, err := range seq {
		require.NoError(t, err)
		all = append(all, v)
	}
	return all
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

const contactsTarget = "GET /v1/contacts"

// The second start accepts the key of the first and prints how to get another one.
// After a program exits, the store has the usage of the key.
func TestKeysSurviveARestart(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		var id, key string
		for i, program := range programs {
			p := start(t, program, nil, "-db", db)
			if i == 0 {
				id, key, _ = printed(t, p)
			}
			require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode, program)
			require.Equal(t, unauthorized("Invalid API credentials!"), p.whole(t, request{contactsTarget, as(id, otherKey), ""}))
			require.Equal(t, unauthorized("API key does not match sender ID"), p.whole(t, request{contactsTarget, as(otherSender, key), ""}))
			p.stop(t)
			if i > 0 {
				shown := `"$SENDERAUTH_DB"`
				if !strings.Contains(db, "://") {
					shown = "'" + db + "'"
				}
				require.Equal(t, "Another key: go -C contrib run ./sqlkeys/cmd/senderkeys key issue -sender "+id+" -db "+shown+"\n", p.output(), program)
			}
		}

		store, _ := openStore(t, db)
		keys := all(t, store.Keys(t.Context(), sqlkeys.KeyFilter{}))
		require.Len(t, keys, 1)
		require.False(t, keys[0].LastUsedAt.IsZero())
		used := map[senderauth.Outcome]int64{}
		for _, u := range all(t, store.Usage(t.Context(), sqlkeys.UsageFilter{})) { // two rows for each outcome if the hour changed
			require.Equal(t, keys[0].ID, u.KeyID)
			require.Equal(t, id, u.SenderID)
			used[u.Outcome] += u.Requests
		}
		n := int64(len(programs))
		require.Equal(t, map[senderauth.Outcome]int64{senderauth.Admitted: n, senderauth.Mismatch: n}, used)
	})
}

// Keys of both formats are accepted, and a UUID in any letter case.
func TestBothFormatsOfKeys(t *testing.T) {
	db := databases["sqlite"](t)
	p := start(t, "quickstart", nil, "-db", db)
	id, key, _ := printed(t, p)
	store, _ := openStore(t, db)
	prefixed, err := store.Issue(t.Context(), sqlkeys.NewKey{SenderID: id, Format: sqlkeys.FormatPrefixed})
	require.NoError(t, err)
	text := prefixed.Credentials.APIKey
	require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, text), ""}).StatusCode)
	require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, strings.ToUpper(key)), ""}).StatusCode)
	for _, wrong := range []string{strings.ToUpper(text), text[:len(text)-1], text[:len(text)-2] + text[len(text)-1:] + text[len(text)-2:len(text)-1] + "a"} {
		require.Equal(t, unauthorized("Invalid API credentials!"), p.whole(t, request{contactsTarget, as(id, wrong), ""}))
	}

	again := start(t, "chi", pairOf(id, text), "-db", db)
	require.Equal(t, 200, again.do(t, request{contactsTarget, as(id, text), ""}).StatusCode, "the store already has the key")
	require.Len(t, all(t, store.Keys(t.Context(), sqlkeys.KeyFilter{})), 2)
}

// A change that an operator makes, with senderkeys or by hand in SQL, reaches all
// programs on the database long before their cache entries expire. Requests of other
// senders are not affected.
func TestProgramsShareKeys(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		ps := []*process{start(t, "quickstart", nil, "-db", db)}
		id, key, _ := printed(t, ps[0])
		ps = append(ps, start(t, "quickstart", nil, "-db", db))
		store, pool := openStore(t, db)

		// Another sender sends requests all the time.
		other, err := store.CreateSender(t.Context(), sqlkeys.NewSender{Limits: map[string]senderauth.Limit{"default": senderauth.Unlimited()}})
		require.NoError(t, err)
		others, err := store.Issue(t.Context(), sqlkeys.NewKey{SenderID: other.ID})
		require.NoError(t, err)
		stop := make(chan struct{})
		served, refused := make([]int, len(ps)), make([]string, len(ps))
		var traffic sync.WaitGroup
		for i, p := range ps {
			traffic.Go(func() {
				client := newClient()
				for {
					select {
					case <-stop:
						return
					case <-time.After(5 * time.Millisecond):
					}
					status, err := client.get(p, as(other.ID, others.Credentials.APIKey))
					if served[i]++; status != 200 || err != nil {
						refused[i] += fmt.Sprint(status, " ", err, "; ")
					}
				}
			})
		}

		served200 := func(key string) {
			t.Helper()
			for i, p := range ps {
				require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode, i)
			}
		}
		refusedByAll := func(key, detail string) {
			t.Helper()
			for i, p := range ps {
				eventually(t, fmt.Sprintf("program %d: %s", i, detail), func() bool {
					return p.whole(t, request{contactsTarget, as(id, key), ""}) == unauthorized(detail)
				})
			}
		}
		second, err := store.Issue(t.Context(), sqlkeys.NewKey{SenderID: id})
		require.NoError(t, err)
		served200(key)
		served200(second.Credentials.APIKey)

		for _, k := range all(t, store.Keys(t.Context(), sqlkeys.KeyFilter{SenderID: id})) {
			if k.ID != second.Key.ID {
				require.Empty(t, senderkeys(t, db, nil, "key", "revoke", "-yes", k.ID))
			}
		}
		refusedByAll(key, "Invalid API credentials!")
		served200(second.Credentials.APIKey)

		_, err = pool.Exec(`UPDATE sqlkeys_keys SET disabled_at = created_at WHERE id = $1`, second.Key.ID)
		require.NoError(t, err)
		refusedByAll(second.Credentials.APIKey, "Invalid API credentials!")
		_, err = pool.Exec(`UPDATE sqlkeys_keys SET disabled_at = NULL WHERE id = $1`, second.Key.ID)
		require.NoError(t, err)
		for _, p := range ps {
			eventually(t, "the key is enabled again", func() bool {
				return p.do(t, request{contactsTarget, as(id, second.Credentials.APIKey), ""}).StatusCode == 200
			})
		}
		require.NoError(t, store.DisableSender(t.Context(), id))
		refusedByAll(second.Credentials.APIKey, "Invalid x-sender-id")

		close(stop)
		traffic.Wait()
		require.Equal(t, []string{"", ""}, refused)
		for _, n := range served {
			require.Positive(t, n)
		}
	})
}

// A later start prints a command that makes another key.
func TestPrintedCommandMakesAKey(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		env := []string{"SENDERAUTH_DB=" + db, "SENDERAUTH_PEPPERS=MDEyMzQ1Njc4OWFiY2RlZg=="}
		start(t, "quickstart", env).stop(t)
		p := start(t, "quickstart", env)
		text, ok := strings.CutPrefix(p.introduction(), "Another key: go -C contrib run ./sqlkeys/cmd/")
		require.True(t, ok)
		sh := exec.Command("sh", "-c", "exec ./"+text)
		sh.Dir, sh.Env = binaries, append(os.Environ(), env...)
		out, err := sh.Output()
		require.NoError(t, err)
		m := regexp.MustCompile(`^SENT_SENDER_ID=(.*)\nSENT_API_KEY=(.*)\n$`).FindSubmatch(out)
		require.NotNil(t, m)
		require.Equal(t, 200, p.do(t, request{contactsTarget, as(string(m[1]), string(m[2])), ""}).StatusCode)
		require.Equal(t, 401, start(t, "quickstart", env[:1]).do(t, request{contactsTarget, as(string(m[1]), string(m[2])), ""}).StatusCode, "without the pepper")
	})
}

// If several programs start at once on an empty database, one makes the first key
// and all accept it. If all have the same pair in their environment, it is stored
// once.
func TestProgramsThatStartAtOnceShareOneFirstKey(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		ps := launchAll(t, nil, db)
		var id, key string
		made := 0
		for _, p := range ps {
			if !strings.HasPrefix(p.introduction(), "Another key: ") {
				id, key, _ = printed(t, p)
				made++
			}
		}
		require.Equal(t, 1, made)
		for _, p := range ps {
			require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode)
			require.Contains(t, p.introduction(), id)
		}

		pair := pairOf(uuid.NewString(), uuid.NewString())
		for _, p := range launchAll(t, pair, db) {
			_, sender, _ := strings.Cut(pair[0], "=")
			_, key, _ := strings.Cut(pair[1], "=")
			require.Equal(t, 200, p.do(t, request{contactsTarget, as(sender, key), ""}).StatusCode)
			p.stop(t)
			require.Empty(t, p.output())
		}
		store, _ := openStore(t, db)
		require.Len(t, all(t, store.Senders(t.Context(), sqlkeys.SenderFilter{})), 2)
		require.Len(t, all(t, store.Keys(t.Context(), sqlkeys.KeyFilter{})), 2)
	})
}

func launchAll(t *testing.T, env []string, db string) []*process {
	t.Helper()
	var ps []*process
	for _, program := range programs {
		ps = append(ps, launch(t, program, env, "-db", db))
	}
	for _, p := range ps {
		p.ready(t)
	}
	return ps
}

// A revoked key stays revoked if it is still in the environment, and the program
// logs a warning.
func TestAdoptedKeyStaysRevoked(t *testing.T) {
	db := databases["sqlite"](t)
	pair := pairOf(uuid.NewString(), uuid.NewString())
	start(t, "quickstart", pair, "-db", db).stop(t)
	store, _ := openStore(t, db)
	keys := all(t, store.Keys(t.Context(), sqlkeys.KeyFilter{}))
	require.Len(t, keys, 1)
	require.NoError(t, store.Revoke(t.Context(), keys[0].ID))

	p := start(t, "quickstart", pair, "-db", db)
	_, key, _ := strings.Cut(pair[1], "=")
	require.Equal(t, unauthorized("Invalid API credentials!"), p.whole(t, request{contactsTarget, as(keys[0].SenderID, key), ""}))
	line := p.awaitLog(t, "the key of SENT_API_KEY is refused")
	delete(line, "time")
	require.Equal(t, map[string]any{"level": "WARN", "msg": "the key of SENT_API_KEY is refused", "key_id": keys[0].ID, "state": "revoked"}, line)
}

// The database is that of -db, or else of SENDERAUTH_DB, or else senderauth.db in the
// working directory.
func TestDatabaseComesFromFlagThenEnvironment(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		env, args []string
		want      string
	}{
		{[]string{"SENDERAUTH_DB=env.db"}, []string{"-db", "flag.db"}, "flag.db"},
		{[]string{"SENDERAUTH_DB=env.db"}, nil, "env.db"},
		{[]string{"SENDERAUTH_DB="}, nil, "senderauth.db"},
	} {
		p := prepare("quickstart", c.env, c.args...)
		p.Dir = dir
		p.launch(t).ready(t)
		printed(t, p)
		p.stop(t)
		require.FileExists(t, filepath.Join(dir, c.want))
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.db"))
	require.NoError(t, err)
	require.Len(t, files, 3)
}

// A mistake in -db is one line on standard error and exit status 1.
func TestMistakesAboutTheDatabase(t *testing.T) {
	dir := t.TempDir()
	port, err := testservers.FreePort()
	require.NoError(t, err)
	garbage := filepath.Join(dir, "garbage.db")
	require.NoError(t, os.WriteFile(garbage, make([]byte, 9000), 0o600))
	addr := "127.0.0.1:" + strconv.Itoa(port)
	unreachable := addr + " (127.0.0.1): dial error: dial tcp " + addr + ": connect: connection refused"
	for source, want := range map[string]string{
		dir:              "-db: sqlkeys: the SQLite file: open " + dir + ": is a directory",
		dir + "/no/k.db": "-db: sqlkeys: the SQLite file: open " + dir + "/no/k.db: no such file or directory",
		garbage:          "-db: sqlkeys: read the schema: file is not a database (26)",
		"mysql://u:p@db": `-db: sqlkeys: the database: invalid: the scheme "mysql" is not postgres, postgresql or file`,
		"postgres://u:hunter2@" + addr + "/x?sslmode=disable": "-db: sqlkeys: read the schema: failed to connect to `user=u database=x`: " + unreachable,
	} {
		require.Equal(t, "quickstart: "+want+"\n", mistake(t, command("quickstart", nil, "-addr", "127.0.0.1:0", "-db", source)))
	}
}

// A program does not start on a file that it may not write, because it would lose
// usage and changes.
func TestReadOnlyFileIsAMistake(t *testing.T) {
	db := databases["sqlite"](t)
	start(t, "quickstart", nil, "-db", db).stop(t)
	require.NoError(t, os.Chmod(db, 0o444))
	cmd := command("quickstart", nil, "-addr", "127.0.0.1:0", "-db", db)
	if os.Geteuid() == 0 { // root can write any file
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		require.NoError(t, err)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
		for dir := filepath.Dir(db); len(dir) > len(os.TempDir()); dir = filepath.Dir(dir) {
			require.NoError(t, os.Chmod(dir, 0o755))
		}
		require.NoError(t, os.Chmod(binaries, 0o755))
	}
	require.Equal(t, "quickstart: -db: sqlkeys: the SQLite file: open "+db+": permission denied\n", mistake(t, cmd))
}

func TestMalformedPeppers(t *testing.T) {
	cmd := command("quickstart", []string{"SENDERAUTH_PEPPERS=hunter2"}, "-addr", "127.0.0.1:0")
	require.Equal(t, "quickstart: SENDERAUTH_PEPPERS: sqlkeys: pepper 0: invalid: not base64\n", mistake(t, cmd))
}

func TestNewerSchemaIsAMistake(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		start(t, "quickstart", nil, "-db", db).stop(t)
		_, pool := openStore(t, db)
		var version int
		require.NoError(t, pool.QueryRow(`SELECT max(version_id) FROM sqlkeys_schema`).Scan(&version))
		_, err := pool.Exec(`UPDATE sqlkeys_schema SET version_id = 9000 WHERE version_id = $1`, version)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("quickstart: -db: sqlkeys: version 9000, not %d: the schema is newer than this program: use a newer program\n", version),
			mistake(t, command("quickstart", nil, "-addr", "127.0.0.1:0", "-db", db)))
	})
}

func TestAdoptingAKeyOfAnotherSenderIsAMistake(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, db string) {
		start(t, "quickstart", pairOf(otherSender, key), "-db", db).stop(t)
		require.Equal(t, "quickstart: SENT_SENDER_ID and SENT_API_KEY: sqlkeys: adopt: the key belongs to another sender: exists already\n",
			mistake(t, command("quickstart", pair, "-addr", "127.0.0.1:0", "-db", db)))
		store, _ := openStore(t, db)
		require.Len(t, all(t, store.Senders(t.Context(), sqlkeys.SenderFilter{})), 1, "nothing was written")
	})
}

// If the first start fails, the next one makes and prints the first key.
func TestFirstKeyIsNotLost(t *testing.T) {
	db := databases["sqlite"](t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	mistake(t, command("quickstart", nil, "-addr", taken.Addr().String(), "-db", db))
	mistake(t, command("quickstart", nil, "-addr", "127.0.0.1:0", "-db", db, "-redis", "http://localhost"))
	p := start(t, "quickstart", nil, "-db", db)
	id, key, _ := printed(t, p)
	require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode)
}

func TestFlagsAreAlike(t *testing.T) {
	usage := func(program string) string {
		out, err := command(program, nil, "-h").CombinedOutput()
		require.NoError(t, err)
		_, flags, _ := strings.Cut(string(out), "\n")
		return flags
	}
	want := usage("quickstart")
	require.Equal(t, []string{"addr", "db", "instances", "log", "redis", "redis-timeout"}, func() (names []string) {
		for _, m := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(want, -1) {
			names = append(names, m[1])
		}
		return names
	}())
	for _, program := range programs {
		require.Equal(t, want, usage(program), program)
	}
	cmd := command("quickstart", []string{"SENDERAUTH_DB=postgres://u:hunter2@db/x"}, "-h")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err)
	require.NotContains(t, string(out), "hunter2")
}

// While the database is down, cached keys are served and unknown ones get 503. A
// program that stops then exits with an error about the usage that it lost.
func TestDatabaseIsDown(t *testing.T) {
	server := pgtest.New(t)
	db := server.URL(t)
	p := start(t, "quickstart", nil, "-db", db)
	id, key, _ := printed(t, p)
	store, _ := openStore(t, db)
	for i := range 2 { // the first change may come before the feed has started
		before := p.lines(`"cached":true`)
		eventually(t, "the key is in the cache", func() bool {
			require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode)
			return p.lines(`"cached":true`) > before
		})
		plan := map[string]senderauth.Limit{"default": {Requests: 1000 + i, Per: time.Second}}
		require.NoError(t, store.SetLimits(t.Context(), id, plan))
		eventually(t, "the new limit applies", func() bool {
			res := p.do(t, request{contactsTarget, as(id, key), ""})
			return res.Header.Get("X-Ratelimit-Limit") == strconv.Itoa(1000+i)
		})
	}
	require.NoError(t, server.Kill())
	p.awaitLog(t, "sqlkeys: the feed of changes is lost")
	require.Equal(t, 200, p.do(t, request{contactsTarget, as(id, key), ""}).StatusCode, "the key is in the cache")
	res := p.do(t, request{contactsTarget, as(id, otherKey), ""})
	require.Equal(t, 503, res.StatusCode, "an unknown key during an outage")
	require.Equal(t, "1", res.Header.Get("Retry-After"))

	require.NoError(t, server.Start())
	eventually(t, "lookups reach the database again", func() bool {
		return p.whole(t, request{contactsTarget, as(id, otherKey), ""}) == unauthorized("Invalid API credentials!")
	})
	p.awaitLog(t, "sqlkeys: the feed of changes is back")
	require.NoError(t, server.Kill())
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Error(t, p.wait())
	require.Equal(t, 1, p.ProcessState.ExitCode())
	last := p.stderr[len(p.stderr)-1]
	p.stderr = p.stderr[:len(p.stderr)-1] // not a line of the log, which is JSON
	require.Regexp(t, `^quickstart: some usage of keys was not recorded: sqlkeys: begin: `, last)
}
