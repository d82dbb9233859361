package sqlkeys

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/senderauth/senderauth"
)

// A Sender is a tenant, which owns keys.
type Sender struct {
	ID         string                      // a UUID in lower case
	Name       string                      // for people
	Limits     map[string]senderauth.Limit // its plan: see Limits of [senderauth.Sender]
	Metadata   map[string]string           // for the application
	CreatedAt  time.Time
	DisabledAt time.Time // zero while enabled
}

// NewSender describes a sender for [Store.CreateSender] to make.
type NewSender struct {
	_ [0]func()

	ID       string // empty means a random one
	Name     string // at most 200 bytes
	Limits   map[string]senderauth.Limit
	Metadata map[string]string // at most 16 KiB as JSON; every lookup reads it
}

// CreateSender adds an enabled sender without keys. It returns [ErrDuplicate]
// if the ID is taken.
func (s *Store) CreateSender(ctx context.Context, n NewSender) (Sender, error) {
	id, err := canonicalSenderID(n.ID)
	if n.ID == "" {
		id, err = newUUID()
	}
	if err := errors.Join(err, invalid(checkName(&n.Name)), invalid(checkLimits(n.Limits)), invalid(checkMetadata(n.Metadata))); err != nil {
		return Sender{}, err
	}
	n.ID = id
	var created Sender
	err = s.change(ctx, func(t *tx) error {
		created, err = t.createSender(n)
		return err
	})
	return created, err
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sqlkeys: %w: %w", ErrInvalid, err)
}

func (t *tx) createSender(n NewSender) (Sender, error) {
	now, err := t.now()
	if err != nil {
		return Sender{}, err
	}
	err = t.exec(`INSERT INTO sqlkeys_senders (id, name, limits, metadata, created_at) VALUES ($1, $2, $3, $4, $5)`,
		n.ID, n.Name, encodeMap(formatLimits(n.Limits)), encodeMap(n.Metadata), t.instant(now))
	if t.isDuplicate(err) {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", n.ID, ErrDuplicate)
	}
	if err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: create sender: %w", err)
	}
	created := Sender{ID: n.ID, Name: n.Name, Limits: n.Limits, Metadata: n.Metadata, CreatedAt: now}
	return created, t.record(AuditEntry{Action: "sender.create", SenderID: n.ID, Detail: limitDetail(n.Limits)})
}

func limitDetail(limits map[string]senderauth.Limit) map[string]string {
	detail := make(map[string]string, len(limits))
	for name, text := range formatLimits(limits) {
		detail["limit."+name] = text
	}
	return detail
}

// SetLimits replaces the plan of a sender.
func (s *Store) SetLimits(ctx context.Context, id string, limits map[string]senderauth.Limit) error {
	if err := invalid(checkLimits(limits)); err != nil {
		return err
	}
	return s.changeSender(ctx, id, func(t *tx, _ time.Time, l lockedSender) error {
		entry := AuditEntry{Action: "sender.limits", SenderID: l.id, Detail: limitDetail(limits)}
		return t.update(entry, `UPDATE sqlkeys_senders SET limits = $2 WHERE id = $1`, l.id, encodeMap(formatLimits(limits)))
	})
}

// DisableSender makes the store refuse every request of a sender until
// [Store.EnableSender]. It does not change the sender's keys.
func (s *Store) DisableSender(ctx context.Context, id string) error {
	return s.changeSender(ctx, id, func(t *tx, now time.Time, l lockedSender) error {
		if l.disabled {
			return nil
		}
		entry := AuditEntry{Action: "sender.disable", SenderID: l.id}
		return t.update(entry, `UPDATE sqlkeys_senders SET disabled_at = $2 WHERE id = $1`, l.id, t.instant(now))
	})
}

// EnableSender makes the store accept the keys of a sender again that
// [Store.DisableSender] has disabled.
func (s *Store) EnableSender(ctx context.Context, id string) error {
	return s.changeSender(ctx, id, func(t *tx, _ time.Time, l lockedSender) error {
		if !l.disabled {
			return nil
		}
		entry := AuditEntry{Action: "sender.enable", SenderID: l.id}
		return t.update(entry, `UPDATE sqlkeys_senders SET disabled_at = NULL WHERE id = $1`, l.id)
	})
}

// A lockedSender is what a change needs to know of a sender. It leaves out the
// limits and the metadata, so that a row with limits that cannot be parsed can
// be disabled, and repaired by SetLimits.
type lockedSender struct {
	id       string
	disabled bool
}

// changeSender runs f while nobody else can change the sender.
func (s *Store) changeSender(ctx context.Context, id string, f func(t *tx, now time.Time, l lockedSender) error) error {
	id, err := canonicalSenderID(id)
	if err != nil {
		return err
	}
	return s.change(ctx, func(t *tx) error {
		l := lockedSender{id: id}
		err := t.row(`SELECT disabled_at IS NOT NULL FROM sqlkeys_senders WHERE id = $1 FOR UPDATE`, id).Scan(&l.disabled)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("sqlkeys: sender %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return fmt.Errorf("sqlkeys: lock a sender: %w", err)
		}
		now, err := t.now()
		if err != nil {
			return err
		}
		return f(t, now, l)
	})
}

const selectSenders = `SELECT id, name, limits, metadata, created_at, disabled_at FROM sqlkeys_senders`

func scanSender(row scanner) (Sender, error) {
	var x Sender
	var limits, metadata string
	err := row.Scan(&x.ID, &x.Name, &limits, &metadata, scannedTime{&x.CreatedAt}, scannedTime{&x.DisabledAt})
	if err != nil {
		return Sender{}, fmt.Errorf("sqlkeys: read a sender: %w", err)
	}
	var errs [2]error
	x.Limits, errs[0] = decodeLimits(limits)
	x.Metadata, errs[1] = decodeMap(metadata)
	return x, inRow("sender "+x.ID, errs[:], "limits", "metadata")
}

// Sender returns one sender, or [ErrNotFound]. If it returns [ErrUnreadable],
// the sender has what can be read.
func (s *Store) Sender(ctx context.Context, id string) (Sender, error) {
	id, err := canonicalSenderID(id)
	if err != nil {
		return Sender{}, err
	}
	x, err := scanSender(s.row(ctx, selectSenders+` WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Sender{}, fmt.Errorf("sqlkeys: sender %s: %w", id, ErrNotFound)
	}
	return x, err
}

// SenderFilter selects senders. The zero filter selects all of them.
type SenderFilter struct {
	_ [0]func()

	State State // Active or Disabled; empty selects both
}

// Senders yields senders, the oldest first. It reads page by page and holds no
// connection in between. It goes on after [ErrUnreadable], which comes with what can be
// read of a sender, and stops after any other error.
func (s *Store) Senders(ctx context.Context, f SenderFilter) iter.Seq2[Sender, error] {
	l, err := senderList(f)
	if err != nil {
		return failed[Sender](err)
	}
	return l.walk(ctx, s)
}

// SendersPage returns a page of what [Store.Senders] yields. If it returns
// [ErrUnreadable], the page has what can be read.
func (s *Store) SendersPage(ctx context.Context, f SenderFilter, p Paging) (Page[Sender], error) {
	l, err := senderList(f)
	if err != nil {
		return Page[Sender]{}, err
	}
	return l.page(ctx, s, p)
}

func senderList(f SenderFilter) (*list[Sender], error) {
	l := &list[Sender]{
		query: query{text: selectSenders + ` WHERE 1 = 1`},
		name:  "senders",
		order: []column{instantColumn(`created_at`), senderColumn(`id`)},
		scan:  scanSender,
		position: func(x Sender) ([]string, error) {
			created, err := cursorInstant(x.CreatedAt)
			return []string{created, x.ID}, err
		},
	}
	switch f.State {
	case "":
	case Active:
		l.text += ` AND disabled_at IS NULL`
	case Disabled:
		l.text += ` AND disabled_at IS NOT NULL`
	default:
		return nil, fmt.Errorf("sqlkeys: SenderFilter.State: %w: %q is neither %s nor %s", ErrInvalid, f.State, Active, Disabled)
	}
	return l, nil
}
