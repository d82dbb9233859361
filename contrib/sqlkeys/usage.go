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

// Usage yields what recorders have written, by hour, key and outcome. It holds
// a connection until the loop ends, and stops after the first error.
func (s *Store) Usage(ctx context.Context, f UsageFilter) iter.Seq2[Usage, error] {
	q, err := s.usageOf(`k.sender_id, u.key_id, u.hour, u.outcome, u.requests`, f)
	if err != nil {
		return failed[Usage](err)
	}
	q.text += ` ORDER BY u.hour, u.key_id, u.outcome`
	return stream(ctx, s, q, scanUsage)
}

// UsageByHour yields the sums over all keys that the filter selects, by hour and
// outcome, without a SenderID and a KeyID. It holds a connection until the loop ends,
// and stops after the first error.
func (s *Store) UsageByHour(ctx context.Context, f UsageFilter) iter.Seq2[Usage, error] {
	q, err := s.usageOf(`'', '', u.hour, u.outcome, CAST(sum(u.requests) AS bigint)`, f)
	if err != nil {
		return failed[Usage](err)
	}
	q.text += ` GROUP BY u.hour, u.outcome ORDER BY u.hour, u.outcome`
	return stream(ctx, s, q, scanUsage)
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
