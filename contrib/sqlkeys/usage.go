package sqlkeys

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/senderauth/senderauth"
)

// Usage counts the requests of a key with one outcome in one hour.
type Usage struct {
	SenderID string
	KeyID    string
	Hour     time.Time // start of the hour
	Outcome  senderauth.Outcome
	Requests int64
}

// UsageFilter selects usage. The zero filter selects all of it.
type UsageFilter struct {
	_ [0]func()

	SenderID string
	KeyID    string
	Since    time.Time // only hours that end after it
	Until    time.Time // only hours that start before it; zero means no end
}

// Usage yields what recorders have written, by hour, key and outcome. It reads page by
// page and holds no connection in between. It stops after the first error.
func (s *Store) Usage(ctx context.Context, f UsageFilter) iter.Seq2[Usage, error] {
	l, err := s.usageList(f)
	if err != nil {
		return failed[Usage](err)
	}
	return l.walk(ctx, s)
}

// UsagePage returns a page of what [Store.Usage] yields.
func (s *Store) UsagePage(ctx context.Context, f UsageFilter, p Paging) (Page[Usage], error) {
	l, err := s.usageList(f)
	if err != nil {
		return Page[Usage]{}, err
	}
	return l.page(ctx, s, p)
}

func (s *Store) usageList(f UsageFilter) (*list[Usage], error) {
	q, err := s.usageOf(`k.sender_id, u.key_id, u.hour, u.outcome, u.requests`, f)
	return &list[Usage]{
		query: q,
		name:  "usage",
		order: []column{instantColumn(`u.hour`), textColumn(`u.key_id`), textColumn(`u.outcome`)},
		scan:  scanUsage,
		position: func(u Usage) ([]string, error) {
			hour, err := cursorInstant(u.Hour)
			return []string{hour, u.KeyID, string(u.Outcome)}, err
		},
	}, err
}

// UsageByHour yields the sums over all keys that the filter selects, by hour and
// outcome, without a SenderID and a KeyID. It reads page by page and holds no connection
// in between. It stops after the first error.
func (s *Store) UsageByHour(ctx context.Context, f UsageFilter) iter.Seq2[Usage, error] {
	q, err := s.usageOf(`'', '', u.hour, u.outcome, CAST(sum(u.requests) AS bigint)`, f)
	if err != nil {
		return failed[Usage](err)
	}
	l := &list[Usage]{
		query: q,
		group: ` GROUP BY u.hour, u.outcome`,
		name:  "usage by hour",
		order: []column{instantColumn(`u.hour`), textColumn(`u.outcome`)},
		scan:  scanUsage,
		position: func(u Usage) ([]string, error) {
			hour, err := cursorInstant(u.Hour)
			return []string{hour, string(u.Outcome)}, err
		},
	}
	return l.walk(ctx, s)
}

// usageOf selects columns of the usage.
func (s *Store) usageOf(columns string, f UsageFilter) (query, error) {
	q := query{text: `SELECT ` + columns + ` FROM sqlkeys_usage u JOIN sqlkeys_keys k ON k.id = u.key_id WHERE 1 = 1`}
	if f.SenderID != "" {
		id, err := canonicalSenderID(f.SenderID)
		if err != nil {
			return query{}, err
		}
		q.and(`k.sender_id`, `=`, id)
	}
	if f.KeyID != "" {
		if err := checkKeyID(f.KeyID); err != nil {
			return query{}, err
		}
		q.and(`u.key_id`, `=`, f.KeyID)
	}
	if !f.Since.IsZero() {
		q.and(`u.hour`, `>`, s.engine.instant(f.Since.Add(-time.Hour)))
	}
	if !f.Until.IsZero() {
		q.and(`u.hour`, `<`, s.engine.instant(f.Until))
	}
	return q, nil
}

func scanUsage(row scanner) (Usage, error) {
	var u Usage
	if err := row.Scan(&u.SenderID, &u.KeyID, scannedTime{&u.Hour}, &u.Outcome, &u.Requests); err != nil {
		return Usage{}, fmt.Errorf("sqlkeys: read the usage: %w", err)
	}
	return u, nil
}
