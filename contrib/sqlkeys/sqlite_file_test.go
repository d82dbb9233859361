package sqlkeys_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// replace moves a backup over the database, with or without its write-ahead log.
func (s fixture) replace(t *testing.T, backup string, withLog bool) {
	t.Helper()
	if withLog {
		require.NoError(t, os.Remove(s.source+"-wal"))
		require.NoError(t, os.Remove(s.source+"-shm"))
	}
	require.NoError(t, os.Rename(backup, s.source))
}

func (s fixture) backup(t *testing.T) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(s.source), "backup.db")
	_, err := s.db.Exec(`VACUUM INTO ?`, file)
	require.NoError(t, err)
	return file
}

// If a backup takes the place of the file, a store reads it at once, and the feed says so.
func TestReplacedFileIsRead(t *testing.T) {
	s, c := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{}), make(reports, 100)
	k := s.issue(t, sqlkeys.NewKey{})
	watch(t, s, c)
	require.Equal(t, "", c.next(t))
	_, err := s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
	s.replace(t, s.backup(t), true)
	require.Equal(t, "", c.next(t), "the feed is on the new file")

	other := open(t, s.source, sqlkeys.Config{}) // stands for another process
	require.NoError(t, other.Revoke(t.Context(), k.Key.ID))
	require.Equal(t, k.Key.SenderID, c.next(t))
	_, err = s.Validate(t.Context(), k.Credentials)
	require.ErrorIs(t, err, senderauth.ErrInvalidKey)
	require.Equal(t, sqlkeys.Revoked, keysOf(t, s, k.Key.SenderID)[0].State)
	require.Empty(t, c, "nothing more is said")
}

// A file whose write-ahead log belongs to the file before is not read: SQLite would mix
// the two.
func TestFileWithAForeignLogIsNotRead(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	s.replace(t, s.backup(t), false)
	for range 2 {
		_, err := s.Validate(t.Context(), k.Credentials)
		require.ErrorContains(t, err, "sqlkeys: the SQLite file was replaced, but not its write-ahead log")
		require.NotErrorIs(t, err, senderauth.ErrInvalidKey)
	}
	require.NoError(t, os.Remove(s.source+"-wal"))
	require.NoError(t, os.Remove(s.source+"-shm"))
	_, err := s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
}

// The write-ahead log of a file behind a symbolic link is beside the file, and not beside
// the link.
func TestForeignLogBehindASymlinkIsNoticed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data", "real.db")
	require.NoError(t, os.Mkdir(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	link := filepath.Join(dir, "keys.db")
	require.NoError(t, os.Symlink(filepath.Join("data", "real.db"), link))
	s := open(t, link, sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	require.FileExists(t, file+"-wal")
	require.NoFileExists(t, link+"-wal")

	behind := fixture{s.Store, s.db, file}
	behind.replace(t, behind.backup(t), false)
	require.ErrorContains(t, validate(t, s, k.Credentials), "sqlkeys: the SQLite file was replaced, but not its write-ahead log")
	require.NoError(t, os.Remove(file+"-wal"))
	require.NoError(t, os.Remove(file+"-shm"))
	require.NoError(t, validate(t, s, k.Credentials))

	// The link may change, too. The other file has a log of its own.
	other := filepath.Join(dir, "other.db")
	_, err := s.db.Exec(`VACUUM INTO ?`, other)
	require.NoError(t, err)
	require.NoError(t, s.Revoke(t.Context(), k.Key.ID))
	require.NoError(t, os.Symlink(other, link+".new"))
	require.NoError(t, os.Rename(link+".new", link))
	require.Equal(t, sqlkeys.Active, keysOf(t, s, k.Key.SenderID)[0].State)
}

// A file that was removed is missed, and not replaced by an empty one.
func TestRemovedFileIsMissed(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "keys.db"), sqlkeys.Config{})
	k := s.issue(t, sqlkeys.NewKey{})
	backup := s.backup(t)
	for _, end := range []string{"", "-wal", "-shm"} {
		require.NoError(t, os.Remove(s.source+end))
	}
	_, err := s.Validate(t.Context(), k.Credentials)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, err, "sqlkeys: the SQLite file: ")
	require.NoFileExists(t, s.source)

	require.NoError(t, os.Rename(backup, s.source))
	_, err = s.Validate(t.Context(), k.Credentials)
	require.NoError(t, err)
}

// A relative path is that of the folder in which OpenDB was called.
func TestRelativePathOutlivesAChangeOfFolder(t *testing.T) {
	t.Chdir(t.TempDir())
	db := openDB(t, "keys.db")
	require.NoError(t, os.Mkdir("elsewhere", 0o700))
	require.NoError(t, os.Chdir("elsewhere"))
	require.NoError(t, sqlkeys.Migrate(t.Context(), db))
	require.NoFileExists(t, "keys.db")
	require.FileExists(t, "../keys.db-wal")
}

// A path may leave a folder that is a symbolic link.
func TestPathLeavesALinkedFolder(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	require.NoError(t, os.Symlink(filepath.Join("a", "b"), filepath.Join(dir, "link")))
	t.Chdir(dir)
	require.NoError(t, sqlkeys.Migrate(t.Context(), openDB(t, "link/../keys.db")))
	require.FileExists(t, filepath.Join("a", "keys.db"))
	require.NoFileExists(t, "keys.db")
}
