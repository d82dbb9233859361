package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const instances = 3

// servers are everything that runs.
type servers struct {
	postgres  *pgtest.Server
	redis     *redistest.Server
	store     *sqlkeys.Store // of the administrator, who makes and revokes keys
	admin     sqlkeys.Sender // the sender whose keys are revoked
	instances []*instance

	ends []func() error // in the order in which the parts were started
}

// startServers starts all parts. Call close even if it fails.
func startServers(ctx context.Context) (s *servers, err error) {
	s = &servers{}
	if s.postgres, err = pgtest.Run(); err != nil {
		return s, fmt.Errorf("start PostgreSQL: %w", err)
	}
	s.ends = append(s.ends, s.postgres.Remove)
	if s.redis, err = redistest.Run(); err != nil {
		return s, fmt.Errorf("start Redis: %w", err)
	}
	s.ends = append(s.ends, s.redis.Remove)

	var db *sql.DB
	if db, err = sqlkeys.OpenDB(pgtest.URLAt(s.postgres.Addr())); err != nil {
		return s, err
	}
	s.ends = append(s.ends, db.Close)
	if s.store, err = sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true, Actor: "fleet"}); err != nil {
		return s, err
	}
	s.ends = append(s.ends, s.store.Close)
	if s.admin, err = s.store.CreateSender(ctx, sqlkeys.NewSender{}); err != nil {
		return s, err
	}
	if _, err := s.store.Issue(ctx, sqlkeys.NewKey{SenderID: s.admin.ID}); err != nil {
		return s, err // an instance would make a first key otherwise
	}
	for n := range instances {
		i, err := startInstance(ctx, fmt.Sprintf("instance %d", n+1), pgtest.URLAt(s.postgres.Addr()), s.redis.URL())
		if err != nil {
			return s, err
		}
		s.ends = append(s.ends, i.stop)
		s.instances = append(s.instances, i)
	}
	return s, nil
}

// close ends all parts, the last one first.
func (s *servers) close() error {
	var errs []error
	for n := len(s.ends) - 1; n >= 0; n-- {
		errs = append(errs, s.ends[n]())
	}
	return errors.Join(errs...)
}
