package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A session is an open store. Its context names the user for the audit.
type session struct {
	*sqlkeys.Store
	ctx context.Context
	db  *sql.DB
}

func (s session) close() error { return errors.Join(s.Store.Close(), s.db.Close()) }

// do returns the RunE of a command that works on a store.
func (a *app) do(f func(ctx context.Context, s *sqlkeys.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.open(cmd.Context(), sqlkeys.Config{})
		if err != nil {
			return err
		}
		return errors.Join(f(s.ctx, s.Store, args), s.close())
	}
}

func (a *app) migrate() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Create the tables, or bring them up to date",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p := a.progress("Migrating", "")
			s, err := a.open(cmd.Context(), sqlkeys.Config{Migrate: true})
			p.end()
			if err != nil {
				return err
			}
			if err := s.close(); err != nil || !a.json {
				return err
			}
			return a.printJSON(map[string]bool{"migrated": true})
		},
	}
}

func (a *app) open(ctx context.Context, cfg sqlkeys.Config) (session, error) {
	source := a.db
	if source == "" {
		source = a.env("SENDERAUTH_DB")
	}
	if source == "" {
		return session{}, errors.New("no database: give -db, or set SENDERAUTH_DB, to a PostgreSQL URL or the path of a SQLite file")
	}
	a.started = true
	if !cfg.Migrate && !strings.Contains(source, "://") && !strings.HasPrefix(source, "file:") && !strings.Contains(source, "=") {
		// OpenDB would create a file at a mistyped path.
		if _, err := os.Stat(source); err != nil {
			return session{}, err
		}
	}
	var err error
	if cfg.Peppers, err = sqlkeys.ParsePeppers(a.env("SENDERAUTH_PEPPERS")); err != nil {
		return session{}, fmt.Errorf("SENDERAUTH_PEPPERS: %w", err)
	}
	cfg.Prefix = a.prefix
	if u, err := user.Current(); err == nil {
		ctx = sqlkeys.WithActor(ctx, u.Username)
	}
	db, err := sqlkeys.OpenDB(source)
	if err != nil {
		return session{}, err
	}
	store, err := sqlkeys.Open(ctx, db, cfg)
	if err != nil {
		db.Close()
		return session{}, err
	}
	return session{store, ctx, db}, nil
}

// one returns a command that works on one sender or key.
func (a *app) one(use, short string, f change) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  oneArg,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, args []string) error {
			return f(ctx, s, args[0])
		}),
	}
}

type change func(ctx context.Context, s *sqlkeys.Store, id string) error

// then returns a change that is followed by show if JSON is wanted. Otherwise a
// change prints nothing. It succeeds even if its row cannot be read in full.
func (a *app) then(show, f change) change {
	return func(ctx context.Context, s *sqlkeys.Store, id string) error {
		if err := f(ctx, s, id); err != nil || !a.json {
			return err
		}
		if err := show(ctx, s, id); err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
			return fmt.Errorf("the change is made, but cannot be shown: %w", err)
		}
		return nil
	}
}
