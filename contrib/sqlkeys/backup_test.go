package sqlkeys_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A backup is a way to copy a store that is in use, and to restore the copy elsewhere.
type backup struct {
	source  string
	make    func(t *testing.T, s fixture)
	restore func(t *testing.T) (source string)
}

func postgresBackup(t *testing.T) backup {
	server := pgtest.New(t)
	source, restored := server.URL(t), server.URL(t)
	file := filepath.Join(t.TempDir(), "keys.dump")
	run := func(t *testing.T, name string, args ...string) {
		out, err := server.Program(name, args...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	return backup{
		source: source,
		make:   func(t *testing.T, _ fixture) { run(t, "pg_dump", "--format=custom", "--file="+file, source) },
		restore: func(t *testing.T) string {
			run(t, "pg_restore", "--exit-on-error", "--single-transaction", "--dbname="+restored, file)
			return restored
		},
	}
}

func sqliteBackup(t *testing.T) backup {
	file := filepath.Join(t.TempDir(), "copy.db")
	return backup{
		source: filepath.Join(t.TempDir(), "keys.db"),
		make: func(t *testing.T, s fixture) {
			_, err := s.db.Exec(`VACUUM INTO ?`, file)
			require.NoError(t, err)
		},
		restore: func(*testing.T) string { return file },
	}
}

// snapshot is all that a store has, and a backup must have.
type snapshot struct {
	senders []sqlkeys.Sender
	keys    []sqlkeys.Key
	usage   []sqlkeys.Usage
	audit   []sqlkeys.AuditEntry
}

func (s fixture) snapshot(t *testing.T) snapshot {
	return snapshot{
		everything(t, s.Senders(t.Context(), sqlkeys.SenderFilter{})),
		everything(t, s.Keys(t.Context(), sqlkeys.KeyFilter{})),
		everything(t, s.Usage(t.Context(), sqlkeys.UsageFilter{})),
		everything(t, s.Audit(t.Context(), sqlkeys.AuditFilter{})),
	}
}

func TestRestoredBackupIsTheStoreAtThatTime(t *testing.T) {
	for name, of := range map[string]func(*testing.T) backup{"postgres": postgresBackup, "sqlite": sqliteBackup} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := of(t)
			cfg := sqlkeys.Config{Peppers: [][]byte{[]byte("0123456789abcdef")}}
			s := open(t, b.source, cfg)
			someKeys(t, s)
			active, revoked, later := s.issue(t, sqlkeys.NewKey{Name: "active"}), s.issue(t, sqlkeys.NewKey{}), s.issue(t, sqlkeys.NewKey{})
			require.NoError(t, s.Revoke(t.Context(), revoked.Key.ID))
			want := s.snapshot(t)
			b.make(t, s)
			require.NoError(t, s.Revoke(t.Context(), later.Key.ID))
			lost := s.issue(t, sqlkeys.NewKey{})

			db := openDB(t, b.restore(t))
			r, err := sqlkeys.Open(t.Context(), db, cfg) // the schema is there
			require.NoError(t, err)
			defer r.Close()
			restored := fixture{r, db, b.source}
			require.Equal(t, want, restored.snapshot(t))
			require.NoError(t, r.CheckPeppers(t.Context()))
			valid := func(c senderauth.Credentials) error {
				_, err := r.Validate(t.Context(), c)
				return err
			}
			require.NoError(t, valid(active.Credentials))
			require.ErrorIs(t, valid(revoked.Credentials), senderauth.ErrInvalidKey)
			require.ErrorIs(t, valid(lost.Credentials), senderauth.ErrInvalidKey)
			require.NoError(t, valid(later.Credentials), "a revocation after the backup is lost: revoke the key again")

			heard := make(reports, 100)
			watch(t, restored, heard)
			require.Equal(t, "", heard.next(t))
			require.NoError(t, r.Revoke(t.Context(), later.Key.ID))
			heard.forgets(t, later.Key.SenderID) // the triggers are restored
			entries := everything(t, r.Audit(t.Context(), sqlkeys.AuditFilter{}))
			require.Len(t, entries, len(want.audit)+1)
			require.Greater(t, entries[len(want.audit)].ID, want.audit[len(want.audit)-1].ID, "the numbers go on")
		})
	}
}

// A backup is useless without the peppers. CheckPeppers reports that they are missing.
func TestBackupNeedsItsPeppers(t *testing.T) {
	b := sqliteBackup(t)
	s := open(t, b.source, sqlkeys.Config{Peppers: [][]byte{[]byte("0123456789abcdef")}})
	s.issue(t, sqlkeys.NewKey{})
	b.make(t, s)
	require.ErrorIs(t, open(t, b.restore(t), sqlkeys.Config{}).CheckPeppers(t.Context()), sqlkeys.ErrInvalid)
}
