package sqlkeys

import (
	"database/sql"
	"fmt"
	"regexp"
	"strings"
)

// OpenDB opens a pool on a PostgreSQL URL or on the path of a SQLite file. The
// pool has at most 16 connections unless the caller sets another limit. The
// errors of OpenDB do not show source, because it may hold a password.
//
// PostgreSQL settings must be a URL. OpenDB rejects other forms instead of taking
// them for a path. It does not contact PostgreSQL yet. Connecting takes at most 5
// seconds unless the URL says otherwise. A connection lives for at most 5 minutes.
//
// The path of a SQLite file may be a URI with the scheme file and the parameters
// of SQLite. OpenDB creates a missing file, readable by the owner only, and uses
// it in WAL mode with a busy timeout of 5 seconds. If another file takes its place,
// the pool drops its connections to the old one.
func OpenDB(source string) (*sql.DB, error) {
	scheme, _, hasScheme := strings.Cut(source, "://")
	var db *sql.DB
	var err error
	switch {
	case source == "":
		return nil, fmt.Errorf("sqlkeys: the database: %w: give a PostgreSQL URL or the path of a SQLite file", ErrInvalid)
	case hasScheme && (scheme == "postgres" || scheme == "postgresql"):
		db, err = openPostgres(source)
	case likePostgres.MatchString(source) && !strings.HasPrefix(source, "file:"):
		return nil, fmt.Errorf("sqlkeys: the database: %w: write PostgreSQL settings as postgres://USER:PASSWORD@HOST/DATABASE, and the path of a SQLite file that looks like them as file:PATH", ErrInvalid)
	case hasScheme && scheme != "file":
		return nil, fmt.Errorf("sqlkeys: the database: %w: the scheme %q is not postgres, postgresql or file", ErrInvalid, scheme)
	default:
		db, err = openSQLite(source)
	}
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(16)
	db.SetMaxIdleConns(16)
	return db, nil
}

// likePostgres matches a URL that lacks its slashes or its scheme, and a list
// of settings.
var likePostgres = regexp.MustCompile(`^(?:postgres(?:ql)?:(?:[^/]|/[^/])|[^/:]*:(?:[^/]|/[^/]).*@|\s*\w+\s*=)`)
