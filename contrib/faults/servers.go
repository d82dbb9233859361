package main

import (
	"context"
	"database/sql"

	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A postgres is a PostgreSQL server of the scenario. Instances reach it through its link;
// its administrator does not.
type postgres struct {
	*pgtest.Server
	link  *proxy
	db    *sql.DB        // of the administrator
	admin *sqlkeys.Store // issues and revokes keys
}

// url returns the URL of the database for instances.
func (p *postgres) url() string { return pgtest.URLAt(p.link.addr()) }

func (e *env) postgres() *postgres {
	s, err := pgtest.Run()
	e.check(err)
	e.cleanup(s.Remove)
	p := &postgres{Server: s, link: e.proxy(s.Addr())}
	p.db, err = sqlkeys.OpenDB(pgtest.URLAt(s.Addr()))
	e.check(err)
	e.cleanup(p.db.Close)
	p.admin, err = sqlkeys.Open(e, p.db, sqlkeys.Config{Migrate: true, Actor: "faults"})
	e.check(err)
	e.cleanup(p.admin.Close)
	return p
}

// issue makes keys for new senders, this many for each.
func (p *postgres) issue(e *env, senders, keysEach int) []sqlkeys.Issued {
	var keys []sqlkeys.NewKey
	for range senders {
		s, err := p.admin.CreateSender(e, sqlkeys.NewSender{})
		e.check(err)
		for range keysEach {
			keys = append(keys, sqlkeys.NewKey{SenderID: s.ID})
		}
	}
	issued, err := p.admin.IssueAll(e, keys)
	e.check(err)
	return issued
}

// A redisServer is a Redis server of the scenario. Instances reach it through its link.
type redisServer struct {
	*redistest.Server
	link *proxy
}

func (e *env) redis(args ...string) *redisServer {
	s, err := redistest.Run(args...)
	e.check(err)
	e.cleanup(s.Remove)
	return &redisServer{Server: s, link: e.proxy(s.Addr())}
}

// accepts reports whether the server takes a connection and answers.
func (p *postgres) accepts(ctx context.Context) bool { return p.db.PingContext(ctx) == nil }
