package sqlkeys

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	sqlitedriver "modernc.org/sqlite"
)

var (
	errFileReplaced = errors.New("sqlkeys: the SQLite file was replaced or removed")
	errForeignLog   = errors.New("sqlkeys: the SQLite file was replaced, but not its write-ahead log: stop all programs that use the file, and delete the files with -wal and -shm after its name")
)

// A sqliteFile opens connections to the file at a path. If another file takes that
// path, such as a backup, the pool drops its connections to the one before: in that
// one nobody revokes keys any more.
type sqliteFile struct {
	driver sqlitedriver.Driver
	dsn    string
	path   string // absolute

	mu       sync.Mutex
	last     fs.FileInfo // the file to which the last connection was opened
	writeLog fs.FileInfo // its write-ahead log, or nil
}

func (f *sqliteFile) Driver() driver.Driver { return &f.driver }

// Connect opens a connection to a file that exists. SQLite itself would create an empty
// one in place of a file that was removed.
func (f *sqliteFile) Connect(ctx context.Context) (driver.Conn, error) {
	now, err := os.Stat(f.path)
	if err != nil {
		return nil, fmt.Errorf("sqlkeys: the SQLite file: %w", err)
	}
	if f.hasForeignLog(now) {
		return nil, errForeignLog
	}
	opened, err := f.driver.Open(f.dsn)
	if err != nil {
		return nil, err
	}
	c := &sqliteConn{opened.(sqliteDriverConn), f, now}
	// SQLite creates the write-ahead log when a connection reads for the first time.
	if _, err := c.ExecContext(ctx, "PRAGMA schema_version", nil); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	log := f.statLog()
	// If the file was replaced since the first look, the log may be that of the other one.
	if c.check() != nil {
		return nil, errors.Join(driver.ErrBadConn, c.Close())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.writeLog = now, log
	return c, nil
}

// hasForeignLog reports whether the write-ahead log at the path holds changes of the
// file before this one. SQLite does not notice, and would mix the two.
func (f *sqliteFile) hasForeignLog(now fs.FileInfo) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil || f.writeLog == nil || os.SameFile(f.last, now) {
		return false
	}
	log := f.statLog()
	return log != nil && log.Size() > 0 && os.SameFile(f.writeLog, log)
}

// statLog returns the write-ahead log, or nil if there is none. SQLite keeps it beside
// the file to which symbolic links lead.
func (f *sqliteFile) statLog() fs.FileInfo {
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return nil
	}
	log, err := os.Stat(path + "-wal")
	if err != nil {
		return nil
	}
	return log
}

// sqliteDriverConn is what the driver's connections implement.
type sqliteDriverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// A sqliteConn is a connection that knows its file.
type sqliteConn struct {
	sqliteDriverConn
	file *sqliteFile
	to   fs.FileInfo
}

// ResetSession makes the pool drop the connection instead of using it again if the file
// was replaced. It takes about a microsecond.
func (c *sqliteConn) ResetSession(ctx context.Context) error {
	if c.check() != nil {
		return driver.ErrBadConn
	}
	return c.sqliteDriverConn.ResetSession(ctx)
}

// check returns an error if the path does not hold the file of the connection.
func (c *sqliteConn) check() error {
	now, err := os.Stat(c.file.path)
	if err != nil {
		return fmt.Errorf("%w: %w", errFileReplaced, err)
	}
	if !os.SameFile(c.to, now) {
		return errFileReplaced
	}
	return nil
}
