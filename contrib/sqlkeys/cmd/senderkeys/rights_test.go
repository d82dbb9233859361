package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A right is one of those in the table of the README.
type right struct{ verb, on string }

// rightsOf reads a column of the table.
func rightsOf(t *testing.T, column int) (rights []right) {
	t.Helper()
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, table, found := strings.Cut(string(readme), "| on | migrations | serving process | `senderkeys` |\n| --- | --- | --- | --- |\n")
	require.True(t, found)
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		for verb := range strings.SplitSeq(cells[column+1], ",") {
			if verb = strings.TrimSpace(verb); verb != "" && verb != "owner" {
				rights = append(rights, right{verb, strings.Trim(cells[1], " `")})
			}
		}
	}
	return rights
}

// A restricted is a database in which roles have the rights that they were granted, and no
// others.
type restricted struct {
	admin  *sql.DB
	source *url.URL
}

func newRestricted(t *testing.T) restricted {
	t.Helper()
	server := pgtest.New(t)
	server.Exec(t, `CREATE DATABASE app`)
	source, err := url.Parse(pgtest.URLAt(server.Addr()))
	require.NoError(t, err)
	source.Path = "/app"
	admin, err := sqlkeys.OpenDB(source.String())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, admin.Close()) })
	d := restricted{admin, source}
	d.exec(t, `REVOKE ALL ON DATABASE app FROM PUBLIC`)
	d.exec(t, `REVOKE ALL ON SCHEMA public FROM PUBLIC`)
	d.exec(t, `REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC`)
	return d
}

func (d restricted) exec(t *testing.T, query string) {
	t.Helper()
	_, err := d.admin.Exec(query)
	require.NoError(t, err)
}

// role makes a role with the rights and returns the URL with which it connects.
func (d restricted) role(t *testing.T, name string, rights []right) string {
	t.Helper()
	d.exec(t, `CREATE ROLE `+name+` LOGIN`)
	for _, r := range rights {
		d.exec(t, fmt.Sprintf(`GRANT %s ON %s TO %s`, r.verb, r.on, name))
	}
	as := *d.source
	as.User = url.User(name)
	return as.String()
}

// needsEach takes one right after the other from a role. f must fail without it.
func (d restricted) needsEach(t *testing.T, name string, rights []right, f func() error) {
	t.Helper()
	for _, r := range rights {
		d.exec(t, fmt.Sprintf(`REVOKE %s ON %s FROM %s`, r.verb, r.on, name))
		require.Error(t, f(), "%s needs no %s on %s", name, r.verb, r.on)
		d.exec(t, fmt.Sprintf(`GRANT %s ON %s TO %s`, r.verb, r.on, name))
	}
	require.NoError(t, f())
}

// The rights in the README suffice for migrations, for a serving process and for every
// command, and each of them is needed.
func TestDocumentedRightsSuffice(t *testing.T) {
	d := newRestricted(t)
	migrating := rightsOf(t, 1)
	owner := shell{t, d.role(t, "migrations", migrating), nil}
	d.needsEach(t, "migrations", migrating, func() error {
		_, err := owner.try("migrate")
		return err
	})

	operating := rightsOf(t, 3)
	operator := shell{t, d.role(t, "operator", operating), nil}
	tried := map[string]bool{"migrate": true}
	d.needsEach(t, "operator", operating, func() error { return operate(operator, tried) })
	require.Equal(t, slices.Sorted(maps.Keys(examples)), slices.Sorted(maps.Keys(tried)), "every command is tried: add a new one to operate")

	serving := rightsOf(t, 2)
	source := d.role(t, "server", serving)
	active, revoked := operator.pair(), operator.pair()
	_, err := operator.try("key", "revoke", revoked.KeyID, "-yes")
	require.NoError(t, err)
	d.needsEach(t, "server", serving, func() error { return serve(source, active, revoked) })
}

// try runs a command and returns what it printed to standard error as an error if it failed.
func (s shell) try(args ...string) (out string, err error) {
	s.t.Helper()
	r := s.with("", args...)
	if r.code != 0 {
		return "", fmt.Errorf("%s: %s", strings.Join(args, " "), r.err)
	}
	return r.out, nil
}

// operate runs the commands until one fails.
func operate(s shell, tried map[string]bool) error {
	sender := uuid.NewString()
	var issued issuedPair
	for _, line := range []string{
		"sender create -id SENDER", "sender limit SENDER -limit default=9/1m", "sender disable SENDER", "sender enable SENDER",
		"sender edit SENDER -name Acme", "sender show SENDER", "sender list",
		"key issue -sender SENDER -json", "key list", "key list -sender SENDER -expiring 14d", "key show KEYID", "key disable KEYID",
		"key enable KEYID", "key edit KEYID -name web", "key scope KEYID orders:read", "key network KEYID -any", "key rotate KEYID", "key revoke KEYID -yes",
		"usage", "usage -sender SENDER", "usage -key KEYID", "audit", "audit -sender SENDER", "audit -key KEYID",
		"prune -audit-older-than 400d -usage-older-than 90d", "sender delete SENDER -yes",
	} {
		out, err := s.try(strings.Fields(strings.NewReplacer("SENDER", sender, "KEYID", issued.KeyID).Replace(line))...)
		if err != nil {
			return err
		}
		if strings.HasPrefix(line, "key issue") {
			if err := json.Unmarshal([]byte(out), &issued); err != nil {
				return err
			}
			if r := s.with(issued.APIKey, "key", "identify"); r.code != 0 {
				return errors.New(r.err)
			}
			tried["key identify"] = true
			if r := s.with(importedCSV, "key", "import"); r.code != 0 {
				return errors.New(r.err)
			}
			tried["key import"] = true
		}
		for command := range examples {
			if line == command || strings.HasPrefix(line, command+" ") {
				tried[command] = true
			}
		}
	}
	return nil
}

// An issuedPair is what key issue prints.
type issuedPair struct {
	SenderID string `json:"sender_id"`
	APIKey   string `json:"api_key"`
	KeyID    string `json:"key_id"`
}

func (p issuedPair) credentials() senderauth.Credentials {
	return senderauth.Credentials{SenderID: p.SenderID, APIKey: p.APIKey}
}

// pair makes a key of a new sender.
func (s shell) pair() (p issuedPair) {
	s.t.Helper()
	require.NoError(s.t, json.Unmarshal([]byte(s.ok("key", "issue", "-sender", strings.TrimSpace(s.ok("sender", "create")), "-json")), &p))
	return p
}

// serve does what a serving process does: it looks keys up, follows changes and records
// usage.
func serve(source string, active, revoked issuedPair) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	db, err := sqlkeys.OpenDB(source)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true}) // there is nothing to migrate
	if err != nil {
		return err
	}
	defer store.Close()
	sender, err := store.Validate(ctx, active.credentials())
	if err != nil {
		return err
	}
	if _, err := store.Validate(ctx, revoked.credentials()); !errors.Is(err, senderauth.ErrInvalidKey) {
		return fmt.Errorf("a revoked key: %w", err)
	}
	purged, ended := make(purges, 1), make(chan error, 1)
	go func() { ended <- store.Watch(ctx, purged) }()
	<-purged
	stop()
	if err := <-ended; err != nil {
		return err
	}
	for range 2 { // inserts, and updates
		uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
		if err != nil {
			return err
		}
		uses.Observe(context.Background(), senderauth.Event{Outcome: senderauth.Admitted, Sender: sender})
		if err := uses.Close(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// purges receives a value when everything is to be forgotten.
type purges chan struct{}

func (purges) Forget(string) {}

func (p purges) Purge() { p <- struct{}{} }
