package sqlkeys

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var embedded embed.FS

var migrations fs.FS = embedded // a test adds to it

const versionTable = "sqlkeys_schema"

// migratePatience is how long one instance waits for others to migrate.
const migratePatience = time.Minute

// Migrate brings the schema up to date. Several instances may call it at once:
// each migration is applied once.
func Migrate(ctx context.Context, db *sql.DB) error {
	e, err := engineOf(db)
	if err != nil {
		return err
	}
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		overtaken, err := migrate(ctx, e)
		retry := overtaken || e.classify(err) == failureBusy
		if err == nil || !retry || ctx.Err() != nil || time.Since(began) > migratePatience {
			return err
		}
	}
}

// migrate tries once. It fails with overtaken if another instance has applied
// a migration in the meantime.
func migrate(ctx context.Context, e engine) (overtaken bool, err error) {
	err = checkSchema(ctx, e)
	if !errors.Is(err, ErrSchemaMissing) && !errors.Is(err, ErrSchemaOlder) {
		return false, err
	}
	m, err := e.newMigrations()
	if err != nil {
		return false, fmt.Errorf("sqlkeys: migrate: %w", err)
	}
	before, err := e.schemaVersion(ctx)
	if err != nil {
		return false, err
	}
	if err := e.applyMigrations(ctx, m); err != nil {
		after, unknown := e.schemaVersion(ctx)
		return unknown == nil && after > before, fmt.Errorf("sqlkeys: migrate: %w", err)
	}
	return false, nil
}

// newMigrations returns the migrations in a folder.
func newMigrations(db *sql.DB, dialect goose.Dialect, folder string, options ...goose.ProviderOption) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, err
	}
	options = append(options,
		goose.WithTableName(versionTable),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
	return goose.NewProvider(dialect, db, files, options...)
}

// checkSchema compares the schema with the newest migration.
func checkSchema(ctx context.Context, e engine) error {
	m, err := e.newMigrations()
	if err != nil {
		return fmt.Errorf("sqlkeys: %w", err)
	}
	sources := m.ListSources()
	want := sources[len(sources)-1].Version
	have, err := e.schemaVersion(ctx)
	switch {
	case err != nil:
		return err
	case have <= 0:
		return fmt.Errorf("sqlkeys: %w", ErrSchemaMissing)
	case have < want:
		return fmt.Errorf("sqlkeys: version %d, not %d: %w", have, want, ErrSchemaOlder)
	case have > want:
		return fmt.Errorf("sqlkeys: version %d, not %d: %w", have, want, ErrSchemaNewer)
	}
	return nil
}

// schemaVersion returns the version of the schema, or 0 if there is none.
// hasTable is the query that reports whether the table $1 exists.
func schemaVersion(ctx context.Context, db *sql.DB, hasTable string) (version int64, err error) {
	var exists bool
	err = db.QueryRowContext(ctx, hasTable, versionTable).Scan(&exists)
	if err == nil && exists {
		err = db.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM `+versionTable).Scan(&version)
	}
	if err != nil {
		return 0, fmt.Errorf("sqlkeys: read the schema: %w", err)
	}
	return version, nil
}
