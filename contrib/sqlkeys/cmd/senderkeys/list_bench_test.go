package main

import (
	"io"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// BenchmarkKeyList runs key list on a million keys of 1,000 senders, as a process of its
// own. Run it with -benchtime=1x.
func BenchmarkKeyList(b *testing.B) {
	for name, fill := range map[string][]string{
		"postgres": {
			`INSERT INTO sqlkeys_senders (id) SELECT gen_random_uuid() FROM generate_series(1, 1000)`,
			`INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment)
				SELECT 'key_' || i, s.id, sha256(i::text::bytea), 'uuid', 'production' FROM generate_series(1, 1000000) i
				JOIN (SELECT id, row_number() OVER () AS n FROM sqlkeys_senders) s ON s.n = i % 1000 + 1`,
			`VACUUM ANALYZE`,
		},
		"sqlite": {
			`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
				INSERT INTO sqlkeys_senders (id, created_at) SELECT printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i), i FROM n`,
			`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
				INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment, created_at)
				SELECT 'key_' || i, printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i % 1000), randomblob(32), 'uuid', 'production', i FROM n`,
		},
	} {
		b.Run(name, func(b *testing.B) {
			source := filepath.Join(b.TempDir(), "keys.db")
			if name == "postgres" {
				source = pgtest.URL(b)
			}
			db, err := sqlkeys.OpenDB(source)
			require.NoError(b, err)
			defer db.Close()
			require.NoError(b, sqlkeys.Migrate(b.Context(), db))
			for _, query := range fill {
				_, err := db.Exec(query)
				require.NoError(b, err)
			}
			for _, format := range []string{"table", "json"} {
				b.Run(format, func(b *testing.B) {
					for b.Loop() {
						cmd := process(b, source, "key", "list", "-json="+map[string]string{"table": "false", "json": "true"}[format])
						cmd.Stdout = io.Discard
						at := time.Now()
						require.NoError(b, cmd.Run())
						b.ReportMetric(time.Since(at).Seconds(), "s")
						b.ReportMetric(float64(cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)/1e3, "MB")
					}
				})
			}
		})
	}
}
