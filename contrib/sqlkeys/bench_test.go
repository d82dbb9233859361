package sqlkeys_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func benchBoth(b *testing.B, f func(b *testing.B, source string)) {
	b.Run("postgres", func(b *testing.B) { f(b, pgtest.URL(b)) })
	b.Run("sqlite", func(b *testing.B) { f(b, filepath.Join(b.TempDir(), "keys.db")) })
}

// million returns a store with a million keys of 1,000 senders, and the
// credentials of 10,000 further keys.
func million(b *testing.B, source string) (fixture, []senderauth.Credentials) {
	s := open(b, source, sqlkeys.Config{})
	queries := []string{
		`ALTER TABLE sqlkeys_senders DISABLE TRIGGER USER`,
		`ALTER TABLE sqlkeys_keys DISABLE TRIGGER USER`,
		`INSERT INTO sqlkeys_senders (id) SELECT gen_random_uuid() FROM generate_series(1, 1000)`,
		`INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment)
			SELECT 'key_' || i, s.id, sha256(i::text::bytea), 'uuid', 'production' FROM generate_series(1, 1000000) i
			JOIN (SELECT id, row_number() OVER () AS n FROM sqlkeys_senders) s ON s.n = i % 1000 + 1`,
		`VACUUM ANALYZE`,
	}
	if s.sqlite() {
		queries = []string{
			`DROP TRIGGER sqlkeys_senders_insert`,
			`DROP TRIGGER sqlkeys_keys_insert`,
			`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
				INSERT INTO sqlkeys_senders (id, created_at) SELECT printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i), 0 FROM n`,
			`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
				INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment, created_at)
				SELECT 'key_' || i, printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i % 1000), randomblob(32), 'uuid', 'production', 0 FROM n`,
			`ANALYZE`,
			`PRAGMA wal_checkpoint(TRUNCATE)`,
		}
	}
	for _, query := range queries {
		_, err := s.db.Exec(query)
		require.NoError(b, err)
	}
	var some []senderauth.Credentials
	ns := make([]sqlkeys.NewKey, 100)
	for range 100 {
		sender := s.sender(b)
		for i := range ns {
			ns[i].SenderID = sender
		}
		issued, err := s.IssueAll(context.Background(), ns)
		require.NoError(b, err)
		for _, k := range issued {
			some = append(some, k.Credentials)
		}
	}
	return s, some
}

// BenchmarkLookup alternates between a lookup and a SELECT 1 on the same
// connection. The lookups cover 10,000 keys among a million, each of which was
// looked up before on that connection. Both have a deadline, as from a cache.
func BenchmarkLookup(b *testing.B) {
	benchBoth(b, func(b *testing.B, source string) {
		s, keys := million(b, source)
		s.db.SetMaxOpenConns(1)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		one, err := s.db.PrepareContext(ctx, `SELECT 1`)
		require.NoError(b, err)
		defer one.Close()
		var n int
		selectOne := func() {
			require.NoError(b, one.QueryRowContext(ctx).Scan(&n))
		}
		lookup := func(i int) {
			_, err := s.Validate(ctx, keys[i*7919%len(keys)])
			require.NoError(b, err)
		}
		for i := range 2 * len(keys) {
			selectOne()
			lookup(i)
		}
		var ones, lookups []time.Duration
		for i := 0; b.Loop(); i++ {
			at := time.Now()
			selectOne()
			ones = append(ones, time.Since(at))
			at = time.Now()
			lookup(i)
			lookups = append(lookups, time.Since(at))
		}
		o, l := percentile(ones, 50), percentile(lookups, 50)
		b.ReportMetric(float64(o.Nanoseconds())/1e3, "select1-µs/p50")
		b.ReportMetric(float64(l.Nanoseconds())/1e3, "lookup-µs/p50")
		b.ReportMetric(float64(l)/float64(o), "ratio")
	})
}

func percentile(ds []time.Duration, p int) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, len(ds)*p/100)]
}

// BenchmarkExpiry counts the keys that end soon, among a million keys of which one in 100, or
// each, ends within 300 days.
func BenchmarkExpiry(b *testing.B) {
	benchBoth(b, func(b *testing.B, source string) {
		s, _ := million(b, source)
		if s.sqlite() {
			_, err := s.db.Exec(`DROP TRIGGER sqlkeys_keys_update`)
			require.NoError(b, err)
		}
		for _, share := range []int{100, 1} {
			queries := []string{
				fmt.Sprintf(`UPDATE sqlkeys_keys SET expires_at = now() + random() * interval '300 days' WHERE %d * random() < 1`, share),
				`VACUUM ANALYZE`,
			}
			if s.sqlite() {
				queries = []string{
					fmt.Sprintf(`UPDATE sqlkeys_keys SET expires_at = (unixepoch('now') + abs(random() %% (300 * 86400))) * 1000 WHERE random() %% %d = 0`, share),
					`ANALYZE`,
					`PRAGMA wal_checkpoint(TRUNCATE)`,
				}
			}
			for _, query := range queries {
				_, err := s.db.Exec(query)
				require.NoError(b, err)
			}
			b.Run(fmt.Sprintf("1 of %d", share), func(b *testing.B) {
				for b.Loop() {
					countExpiry(b, s)
				}
			})
		}
	})
}

// countExpiry runs an Expiry until it has counted once.
func countExpiry(b *testing.B, s fixture) {
	e, err := s.NewExpiry(sqlkeys.ExpiryConfig{Interval: time.Hour})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { e.Run(ctx) })
	for e.Expiring(30*day) < 0 {
		time.Sleep(100 * time.Microsecond)
	}
	cancel()
	run.Wait()
}

// BenchmarkIssue1000 issues 1,000 keys in one transaction.
func BenchmarkIssue1000(b *testing.B) {
	benchBoth(b, func(b *testing.B, source string) {
		s := open(b, source, sqlkeys.Config{})
		ns := make([]sqlkeys.NewKey, 1000)
		for i := range ns {
			ns[i].SenderID = s.sender(b)
		}
		for b.Loop() {
			_, err := s.IssueAll(context.Background(), ns)
			require.NoError(b, err)
		}
	})
}

// BenchmarkRecorder measures Observe while the recorder writes to the database.
func BenchmarkRecorder(b *testing.B) {
	for _, keys := range []int{1, 1000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			benchBoth(b, func(b *testing.B, source string) {
				s := open(b, source, sqlkeys.Config{})
				r := recorder(b, s, sqlkeys.RecorderConfig{Interval: 10 * time.Second})
				events := make([]senderauth.Event, keys)
				for i := range events {
					events[i] = senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: fmt.Sprintf("key_%016d", i)}}
				}
				ctx := context.Background()
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						r.Observe(ctx, events[i%keys])
					}
				})
			})
		})
	}
}

// pace calls f at a rate until ctx ends.
func pace(ctx context.Context, wait *sync.WaitGroup, perSecond int, f func(i int)) {
	wait.Go(func() {
		start := time.Now()
		for i := 0; ctx.Err() == nil; i++ {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(perSecond))
			time.Sleep(time.Until(due))
			f(i)
		}
	})
}

// BenchmarkFeed revokes b.N keys, one after the other, while the caches of three
// instances serve 2,000 lookups per second. It measures the time from the commit
// to the first refusal on the slowest instance. Run it with -benchtime=1000x.
func BenchmarkFeed(b *testing.B) {
	benchBoth(b, func(b *testing.B, source string) {
		var fleet []instance
		for range 3 {
			fleet = append(fleet, newInstance(b, source, senderauth.CacheConfig{TTL: time.Hour}))
		}
		admin := open(b, source, sqlkeys.Config{})
		ns := make([]sqlkeys.NewKey, b.N+100)
		for i := range ns {
			ns[i].SenderID = admin.sender(b)
		}
		keys, err := admin.IssueAll(context.Background(), ns)
		require.NoError(b, err)
		steady := keys[b.N:]
		for _, i := range fleet {
			i.settle(b)
			for _, k := range keys {
				_, err := i.Validate(context.Background(), k.Credentials)
				require.NoError(b, err)
			}
		}
		ctx, stop := context.WithCancel(context.Background())
		var wait sync.WaitGroup
		var failed, served atomic.Int64
		began := time.Now()
		for _, i := range fleet {
			pace(ctx, &wait, 2000/3, func(n int) {
				if _, err := i.Validate(ctx, steady[n%len(steady)].Credentials); err != nil && ctx.Err() == nil {
					failed.Add(1)
				}
				served.Add(1)
			})
		}
		var took []time.Duration
		b.ResetTimer()
		for n := range b.N {
			require.NoError(b, admin.Revoke(ctx, keys[n].Key.ID))
			committed := time.Now()
			var slowest atomic.Int64
			var all sync.WaitGroup
			for _, i := range fleet {
				all.Go(func() {
					for {
						_, err := i.Validate(ctx, keys[n].Credentials)
						if err != nil {
							break
						}
						time.Sleep(500 * time.Microsecond)
					}
					d := int64(time.Since(committed))
					for old := slowest.Load(); old < d && !slowest.CompareAndSwap(old, d); old = slowest.Load() {
					}
				})
			}
			all.Wait()
			took = append(took, time.Duration(slowest.Load()))
		}
		b.StopTimer()
		stop()
		wait.Wait()
		require.Zero(b, failed.Load())
		b.ReportMetric(float64(served.Load())/time.Since(began).Seconds(), "requests/s")
		b.ReportMetric(float64(percentile(took, 50).Microseconds())/1e3, "ms/p50")
		b.ReportMetric(float64(percentile(took, 99).Microseconds())/1e3, "ms/p99")
		b.ReportMetric(float64(percentile(took, 100).Microseconds())/1e3, "ms/max")
	})
}

// BenchmarkRestart kills the server for 5 seconds under 500 requests per second,
// nine of ten of them cached. Run it with -benchtime=1x.
func BenchmarkRestart(b *testing.B) {
	for range b.N {
		server := pgtest.New(b)
		source := server.URL(b)
		i := newInstance(b, source, senderauth.CacheConfig{})
		ns := make([]sqlkeys.NewKey, 8000)
		senders := make([]string, 100)
		for n := range senders {
			senders[n] = i.sender(b)
		}
		for n := range ns {
			ns[n].SenderID = senders[n%len(senders)]
		}
		keys, err := i.IssueAll(context.Background(), ns)
		require.NoError(b, err)
		cached, cold := keys[:100], keys[100:]
		i.settle(b)
		for _, k := range cached {
			_, err := i.Validate(context.Background(), k.Credentials)
			require.NoError(b, err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var wait sync.WaitGroup
		var refused, failedCached, failedCold, next, most atomic.Int64
		var mu sync.Mutex
		var lastFailure time.Time
		ask := func(k sqlkeys.Issued, failed *atomic.Int64) {
			wait.Go(func() {
				_, err := i.Validate(context.Background(), k.Credentials)
				switch {
				case err == nil:
				case isRefusal(err):
					refused.Add(1)
				default:
					failed.Add(1)
					mu.Lock()
					lastFailure = time.Now()
					mu.Unlock()
				}
			})
			most.Store(max(most.Load(), int64(i.db.Stats().OpenConnections)))
		}
		pace(ctx, &wait, 500, func(n int) {
			if n%10 == 0 {
				ask(cold[int(next.Add(1))%len(cold)], &failedCold)
			} else {
				ask(cached[n%len(cached)], &failedCached)
			}
		})
		time.Sleep(2 * time.Second)
		require.NoError(b, server.Kill())
		time.Sleep(5 * time.Second)
		require.NoError(b, server.Start())
		back := time.Now()
		time.Sleep(6 * time.Second)
		stop()
		wait.Wait()
		require.Zero(b, refused.Load(), "a good key is refused")
		b.ReportMetric(float64(failedCached.Load()), "failures-cached")
		b.ReportMetric(float64(failedCold.Load()), "failures-cold")
		b.ReportMetric(max(0, lastFailure.Sub(back).Seconds()), "s-to-full-rate")
		b.ReportMetric(float64(most.Load()), "connections")
	}
}

// BenchmarkReconnect cuts the connection of the feed while a key is revoked, and
// measures the time from the cut to the refusal. Run it with -benchtime=100x.
func BenchmarkReconnect(b *testing.B) {
	i := newInstance(b, pgtest.URL(b), senderauth.CacheConfig{TTL: time.Hour})
	admin := openDB(b, i.source)
	var took []time.Duration
	for range b.N {
		k := i.issue(b, sqlkeys.NewKey{})
		require.Eventually(b, func() bool {
			_, err := i.Validate(context.Background(), k.Credentials)
			return err == nil
		}, 20*time.Second, time.Millisecond)
		require.Eventually(b, func() bool { return cutFeed(b, admin) }, 20*time.Second, 5*time.Millisecond)
		_, err := admin.Exec(`UPDATE sqlkeys_keys SET revoked_at = now() WHERE id = $1`, k.Key.ID)
		require.NoError(b, err)
		at := time.Now()
		for {
			if _, err := i.Validate(context.Background(), k.Credentials); err != nil {
				break
			}
			time.Sleep(500 * time.Microsecond)
		}
		took = append(took, time.Since(at))
	}
	b.ReportMetric(float64(percentile(took, 50).Microseconds())/1e3, "ms/p50")
	b.ReportMetric(float64(percentile(took, 100).Microseconds())/1e3, "ms/max")
}

// BenchmarkFailover moves an address from one primary to another, and measures the time
// until the feed has followed. The pool opens a connection for each query. Run it with
// -benchtime=20x.
func BenchmarkFailover(b *testing.B) {
	primary := pgtest.New(b)
	open(b, pgtest.URLAt(primary.Addr()), sqlkeys.Config{})
	standby := primary.Standby(b)
	standby.Exec(b, `SELECT pg_promote()`)
	var address virtualAddress
	address.to.Store(primary.Addr())
	s, c := open(b, pgtest.URLAt(address.listen(b)), sqlkeys.Config{}), make(reports, 100)
	s.db.SetMaxIdleConns(0)
	watch(b, s, c)
	require.Equal(b, "", c.next(b))
	var took []time.Duration
	for i := range b.N {
		time.Sleep(rand.N(10 * time.Second)) // at any time between two probes
		address.to.Store([]string{standby.Addr(), primary.Addr()}[i%2])
		at := time.Now()
		require.Equal(b, "", c.next(b))
		took = append(took, time.Since(at))
	}
	b.ReportMetric(percentile(took, 50).Seconds(), "s/p50")
	b.ReportMetric(percentile(took, 100).Seconds(), "s/max")
}

// cutFeed terminates the listening connections, and reports whether there were
// any.
func cutFeed(t testing.TB, db *sql.DB) bool {
	var n int
	require.NoError(t, db.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
		WHERE datname = current_database() AND query LIKE 'LISTEN%' AND pid <> pg_backend_pid()`).Scan(&n))
	return n > 0
}

// BenchmarkLockedTable locks the table of keys for 10 seconds under lookups of
// unknown keys, 400 at a time, with a pool of 4. Run it with -benchtime=1x.
func BenchmarkLockedTable(b *testing.B) {
	for range b.N {
		s := open(b, pgtest.URL(b), sqlkeys.Config{})
		s.db.SetMaxOpenConns(4)
		const timeout = 500 * time.Millisecond
		cache, err := senderauth.NewCache(s, senderauth.CacheConfig{LookupTimeout: timeout})
		require.NoError(b, err)
		k := s.issue(b, sqlkeys.NewKey{})
		locker, err := openDB(b, s.source).Begin()
		require.NoError(b, err)
		_, err = locker.Exec(`LOCK TABLE sqlkeys_keys IN ACCESS EXCLUSIVE MODE`)
		require.NoError(b, err)
		var slowest, answered, refused atomic.Int64
		var all sync.WaitGroup
		end := time.Now().Add(10 * time.Second)
		for range 400 {
			all.Go(func() {
				for time.Now().Before(end) {
					at := time.Now()
					_, err := cache.Validate(context.Background(), senderauth.Credentials{SenderID: k.Key.SenderID, APIKey: uuid.NewString()})
					d := int64(time.Since(at))
					answered.Add(1)
					if err == nil || isRefusal(err) {
						refused.Add(1)
					}
					for old := slowest.Load(); old < d && !slowest.CompareAndSwap(old, d); old = slowest.Load() {
					}
				}
			})
		}
		most := 0
		for time.Now().Before(end) {
			most = max(most, cache.Stats().InFlight)
			time.Sleep(10 * time.Millisecond)
		}
		all.Wait()
		require.NoError(b, locker.Rollback())
		back := time.Now()
		require.Eventually(b, func() bool {
			_, err := cache.Validate(context.Background(), k.Credentials)
			return err == nil
		}, 20*time.Second, time.Millisecond)
		require.Zero(b, refused.Load())
		b.ReportMetric(float64(answered.Load()), "answers")
		b.ReportMetric(time.Duration(slowest.Load()).Seconds()*1e3, "ms-slowest")
		b.ReportMetric(float64(most), "in-flight")
		b.ReportMetric(time.Since(back).Seconds()*1e3, "ms-to-recover")
	}
}
