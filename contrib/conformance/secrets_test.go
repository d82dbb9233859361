package conformance

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { testservers.Main(m) }

// Run all vectors, and requests while the store is slow, fails or panics and clients
// leave. Then search everything that anybody can see for keys and parts of keys.
func TestNoOutputHoldsAKey(t *testing.T) {
	s := load(t)
	t.Run("in process", func(t *testing.T) {
		var out lockedBuffer
		for _, v := range s.Vectors {
			t.Run(v.ID, func(t *testing.T) {
				x := s.run(t, v, &out)
				out.Write(x.received.Bytes())
			})
		}
		// The output is not empty: it reports every outcome.
		for _, outcome := range []string{"admitted", "missing_key", "missing_sender", "invalid_sender", "invalid_key", "mismatch", "limited", "insecure", "unavailable", "failed"} {
			require.True(t, strings.Contains(out.String(), `"outcome":"`+outcome+`"`), outcome)
		}
		keys := s.presentedKeys()
		require.Greater(t, len(keys), 40)
		s.wantNone(t, "output", out.Bytes(), keys)
	})
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine+" and Redis", func(t *testing.T) {
			p := newPlace(t, s, engine)
			keys := s.presentedKeys()
			p.sendVectors(t)
			for _, mode := range []string{"ok", "error", "panic", "block"} {
				for _, c := range p.sendMany(t, mode) {
					keys = append(keys, c.APIKey)
				}
			}
			p.panics(t)
			p.collect(t)
			require.NoError(t, p.db.Close())
			p.sendMany(t, "ok") // now the database is down
			for name, out := range p.outputs() {
				s.wantNone(t, name, out.Bytes(), keys)
			}
			log := p.log.String()
			for _, said := range []string{`outcome=admitted`, `outcome=invalid_key`, `outcome=mismatch`, `outcome=unavailable`, `outcome=failed`, `outcome=canceled`, "panicked at", "http: panic serving", "database is closed"} {
				require.True(t, strings.Contains(log, said), said)
			}
			require.True(t, strings.Contains(p.profiles.String(), "conformance.(*store).Validate"), "no lookup is in flight")
		})
	}
}

// A key that somebody does write is found, whatever wrote it and in every disguise.
func TestSearchFindsPlantedKeys(t *testing.T) {
	s := load(t)
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine+" and Redis", func(t *testing.T) {
			p := newPlace(t, s, engine)
			planted := map[string]string{} // the disguise of each key
			var secrets []string
			for range 2 { // for columns of text and of bytes
				for _, name := range slices.Sorted(maps.Keys(disguises(p.newKey(t)))) {
					key := p.newKey(t)
					planted[key] = name
					secrets = append(secrets, disguises(key)[name])
				}
			}
			p.plant(t, secrets)
			for name, out := range p.outputs() {
				in := newSearch(out.Bytes())
				for key, disguise := range planted {
					if in.findKey(s, key) == "" {
						t.Errorf("%s, %s: not found", name, disguise)
					}
				}
			}
		})
	}
}

// wantNone fails if the output holds a key. It does not say which.
func (s *suite) wantNone(t *testing.T, name string, output []byte, keys []string) {
	t.Helper()
	require.NotEmpty(t, output, name)
	in := newSearch(output)
	for i, key := range keys {
		if form := in.findKey(s, key); form != "" {
			t.Errorf("%s: a part of key %d, %s", name, i, form)
		}
	}
}

// presentedKeys returns everything that a client sends as a key, in any part of a
// request, and every key of the store.
func (s *suite) presentedKeys() []string {
	seen := map[string]bool{}
	for _, c := range s.Credentials {
		seen[c.Key] = true
	}
	field := regexp.MustCompile(`(?i)x[-_.]?api[-_.]?key2?["'=: ]+([^\r\n"&]+)`)
	for _, v := range s.Vectors {
		for _, m := range field.FindAllStringSubmatch(v.wire(), -1) {
			key, _, _ := strings.Cut(m[1], " HTTP/1.") // if the key is in a request line
			seen[key] = true
		}
	}
	var keys []string
	for k := range seen {
		if len(k) >= window {
			keys = append(keys, k)
		}
	}
	return keys
}

// A place is where keys may turn up: the service with its stores, and its outputs.
type place struct {
	suite    *suite
	store    *sqlkeys.Store
	db       *sql.DB
	tables   string // the query for their names
	redis    *redis.Client
	backends backends
	recorder *sqlkeys.Recorder

	log, responses, profiles, redisOut, databaseOut lockedBuffer
}

func (p *place) outputs() map[string]*lockedBuffer {
	return map[string]*lockedBuffer{"log": &p.log, "responses": &p.responses, "profiles": &p.profiles, "Redis": &p.redisOut, "database": &p.databaseOut}
}

// newPlace makes a place with the credentials of the suite, in their states.
func newPlace(t *testing.T, s *suite, engine string) *place {
	p := &place{suite: s, tables: `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`}
	logger := slog.New(slog.NewTextHandler(&p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	source := filepath.Join(t.TempDir(), "keys.db")
	if engine == "PostgreSQL" {
		source = pgtest.URL(t)
		p.tables = `SELECT tablename FROM pg_tables WHERE schemaname = 'public'`
	}
	var err error
	p.db, err = sqlkeys.OpenDB(source)
	require.NoError(t, err)
	t.Cleanup(func() { p.db.Close() })
	p.store, err = sqlkeys.Open(t.Context(), p.db, sqlkeys.Config{Migrate: true, Logger: logger})
	require.NoError(t, err)
	p.recorder, err = p.store.NewRecorder(sqlkeys.RecorderConfig{Interval: 50 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { p.recorder.Close(context.Background()) })
	p.adopt(t)

	server := redistest.New(t)
	p.redis = redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	t.Cleanup(func() { p.redis.Close() })
	limiter, err := redislimit.New(p.redis, redislimit.Config{Instances: 1, Timeout: patience, OnMode: func(m redislimit.Mode, err error) { logger.Warn("mode", "mode", m, "err", err) }})
	require.NoError(t, err)
	t.Cleanup(func() { limiter.Close() })

	debug := func(senderauth.Event) slog.Level { return slog.LevelDebug }
	p.backends = backends{validator: p.store, checkKey: p.store.CheckKey, limiter: limiter, observe: senderauth.Observers(senderauth.LogEvents(logger, debug), p.recorder.Observe)}
	return p
}

// adopt stores the credentials of the suite.
func (p *place) adopt(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(p.suite.Credentials)) {
		c := p.suite.Credentials[name]
		owner := p.suite.Senders[c.Sender]
		if c.State == "never issued" || strings.HasPrefix(c.State, "absent") {
			continue
		}
		key, err := p.store.Adopt(t.Context(), senderauth.Credentials{SenderID: owner.ID, APIKey: c.Key})
		require.NoError(t, err, name)
		switch {
		case strings.HasPrefix(c.State, "disabled"), strings.HasPrefix(c.State, "inactive"):
			err = p.store.Disable(t.Context(), key.ID)
		case strings.HasPrefix(c.State, "deleted"):
			err = p.store.Revoke(t.Context(), key.ID)
		}
		require.NoError(t, err, name)
		if owner.State == "disabled" {
			require.NoError(t, p.store.DisableSender(t.Context(), owner.ID))
		}
	}
	_, err := p.store.Adopt(t.Context(), senderauth.Credentials{SenderID: p.suite.Senders["A"].ID, APIKey: p.suite.Credentials["B.active"].Key})
	require.Error(t, err)
	fmt.Fprintln(&p.log, err)
}

// sendVectors sends all vectors of a configuration at once to one application. What is
// answered does not matter here.
func (p *place) sendVectors(t *testing.T) {
	byConfig := map[string][]*vector{}
	for _, v := range p.suite.Vectors {
		if v.ID == "meth-unsent-body-429" {
			continue // its bucket is not empty here, and the handler would wait for its body
		}
		byConfig[v.Config] = append(byConfig[v.Config], v)
	}
	for config, vectors := range byConfig {
		a := newApplication(t, p.suite, config, "", p.backends, &p.log)
		a.serve(t, func(addr string) {
			var sent sync.WaitGroup
			for _, v := range vectors {
				sent.Go(func() {
					x, err := v.exchange(addr)
					if err != nil {
						fmt.Fprintln(&p.log, err)
					}
					if x != nil {
						p.responses.Write(x.received.Bytes())
					}
				})
			}
			sent.Wait()
		})
	}
}

// sendMany sends requests with many new keys at once, while the store is in a mode: keys
// of both forms, unknown ones, and those of another sender. If the store blocks, half
// of the clients leave, and profiles are taken during the lookups of the others.
func (p *place) sendMany(t *testing.T, mode string) (all []senderauth.Credentials) {
	const clients = 24
	for n := range clients {
		c := senderauth.Credentials{SenderID: p.suite.Senders["A"].ID}
		format := []sqlkeys.Format{sqlkeys.FormatUUID, sqlkeys.FormatPrefixed}[n%2]
		issued, err := p.store.Issue(t.Context(), sqlkeys.NewKey{SenderID: c.SenderID, Format: format})
		if err != nil {
			fmt.Fprintln(&p.log, err)
			c.APIKey = p.suite.Credentials["A.active"].Key
		} else {
			c.APIKey = issued.Credentials.APIKey
			fmt.Fprintf(&p.log, "%+v\n", issued)
		}
		switch n % 3 {
		case 1:
			c.SenderID = p.suite.Senders["B"].ID
		case 2:
			if err == nil {
				require.NoError(t, p.store.Revoke(t.Context(), issued.Key.ID))
			}
		}
		all = append(all, c)
	}
	a := newApplication(t, p.suite, "", "", p.backends, &p.log)
	a.store.set(mode)
	a.serve(t, func(addr string) {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		var sent sync.WaitGroup
		for n, c := range all {
			sent.Go(func() {
				ctx := ctx
				if n%2 == 0 {
					ctx = t.Context()
				}
				p.send(ctx, "http://"+addr+"/v2/contacts", c)
			})
		}
		if mode == "block" {
			require.Eventually(t, func() bool { return a.cache.Stats().InFlight == clients }, patience, time.Millisecond)
			// The clients leave first: on a busy machine the profiles can take longer than a lookup
			// may, and then the server has answered everybody.
			leave()
			require.Eventually(t, func() bool { return strings.Contains(p.log.String(), `outcome=canceled`) }, patience, time.Millisecond)
			writeProfiles(t, &p.profiles)
		}
		sent.Wait()
	})
	return all
}

// send sends a request twice, so that the cache may answer the second time.
func (p *place) send(ctx context.Context, url string, c senderauth.Credentials) {
	var transport http.Transport
	defer transport.CloseIdleConnections()
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			panic(err)
		}
		r.Header.Set("X-Sender-Id", c.SenderID)
		r.Header.Set("X-Api-Key", c.APIKey)
		resp, err := transport.RoundTrip(r)
		if err != nil {
			continue // the client has left, or the handler panicked
		}
		out := struct{ io.Writer }{&p.responses} // bytes.Buffer has methods that do not lock
		resp.Header.Write(out)
		io.Copy(out, resp.Body)
		resp.Body.Close()
	}
}

// panics calls a handler that panics with its request. net/http logs that.
func (p *place) panics(t *testing.T) {
	a := newApplication(t, p.suite, "", "", p.backends, &p.log)
	c := p.suite.Credentials["A.active"]
	a.serve(t, func(addr string) {
		p.send(t.Context(), "http://"+addr+"/v2/panic", senderauth.Credentials{SenderID: p.suite.Senders[c.Sender].ID, APIKey: c.Key})
	})
}

// collect reads what Redis and the database hold.
func (p *place) collect(t *testing.T) {
	require.NoError(t, p.recorder.Close(context.Background()))
	writeRedis(t, p.redis, &p.redisOut)
	writeDatabase(t, p.db, p.tables, &p.databaseOut)
	writeProfiles(t, &p.profiles)
}

// newKey returns a key of sender A in the form of a UUID.
func (p *place) newKey(t *testing.T) string {
	issued, err := p.store.Issue(t.Context(), sqlkeys.NewKey{SenderID: p.suite.Senders["A"].ID})
	require.NoError(t, err)
	return issued.Credentials.APIKey
}

// plant writes secrets to each output in the way of somebody who leaks. The first half of
// them reaches a column of text in the database, and the others one of bytes.
func (p *place) plant(t *testing.T, secrets []string) {
	_, err := p.db.Exec(`CREATE TABLE planted (value bytea)`)
	require.NoError(t, err)
	done := make(chan struct{})
	defer close(done)
	for n, secret := range secrets {
		a := newApplication(t, p.suite, "", "", backends{
			validator: senderauth.ValidatorFunc(func(context.Context, senderauth.Credentials) (senderauth.Sender, error) {
				return senderauth.Sender{}, &senderauth.Problem{Status: http.StatusForbidden, Detail: secret, Err: errors.New(secret)}
			}),
			limiter: p.backends.limiter, observe: p.backends.observe,
		}, &p.log)
		c := p.suite.Credentials["A.active"]
		a.serve(t, func(addr string) {
			p.send(t.Context(), "http://"+addr+"/v2/contacts", senderauth.Credentials{SenderID: p.suite.Senders[c.Sender].ID, APIKey: c.Key})
		})
		require.NoError(t, p.redis.HSet(t.Context(), "planted", secret, "1").Err())
		if n < len(secrets)/2 {
			_, err = p.store.CreateSender(t.Context(), sqlkeys.NewSender{Metadata: map[string]string{"secret": secret}})
		} else {
			_, err = p.db.Exec(`INSERT INTO planted VALUES ($1)`, []byte(secret))
		}
		require.NoError(t, err)
		started := make(chan struct{})
		go pprof.Do(context.Background(), pprof.Labels("key", secret), func(context.Context) {
			close(started)
			<-done
		})
		<-started
	}
	p.collect(t)
}
