package sqlkeys

import (
	"context"
	"fmt"
	"time"
)

// Retention says what [Store.Prune] deletes. A zero instant deletes nothing.
type Retention struct {
	_ [0]func()

	AuditBefore time.Time // audit entries from before that instant
	UsageBefore time.Time // usage of hours that ended by that instant
	DryRun      bool      // only count
}

// Pruned is the number of rows that [Store.Prune] has deleted, or would delete.
type Pruned struct {
	Audit int64
	Usage int64
}

// pruneBatch is the number of rows that one transaction deletes.
const pruneBatch = 1000

// pruneTries is how often in succession a batch may find the SQLite file locked, each time
// for 5 seconds.
const pruneTries = 20

// Prune deletes old rows for good, the oldest first. It is safe while services use the store:
// it deletes at most 1,000 rows in a transaction, and rests after each for as long as that
// took. If it fails, or ctx ends, what it has deleted so far comes with the error.
func (s *Store) Prune(ctx context.Context, r Retention) (Pruned, error) {
	now := time.Now()
	for name, before := range map[string]time.Time{"AuditBefore": r.AuditBefore, "UsageBefore": r.UsageBefore} {
		if before.After(now) {
			return Pruned{}, fmt.Errorf("sqlkeys: Retention.%s: %w: %s is in the future", name, ErrInvalid, before.Format(time.RFC3339))
		}
	}
	var done Pruned
	for _, p := range []struct {
		before                    time.Time
		table, id, matches, order string
		count                     *int64
	}{
		{r.AuditBefore, `sqlkeys_audit`, `id`, `at < $1`, `at`, &done.Audit},
		{r.UsageBefore.Add(-time.Hour), `sqlkeys_usage`, `key_id, hour, outcome`, `hour <= $1`, `hour`, &done.Usage},
	} {
		if p.before.Before(time.Unix(0, 0)) { // none is given
			continue
		}
		old := p.table + ` WHERE ` + p.matches
		at := s.engine.instant(p.before)
		if r.DryRun {
			if err := s.row(ctx, `SELECT count(*) FROM `+old, at).Scan(p.count); err != nil {
				return done, fmt.Errorf("sqlkeys: prune: %w", err)
			}
			continue
		}
		query := fmt.Sprintf(`DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s ORDER BY %s LIMIT %d)`, p.table, p.id, p.id, old, p.order, pruneBatch)
		if err := s.deleteAll(ctx, query, at, p.count); err != nil {
			return done, err
		}
	}
	return done, nil
}

// deleteAll repeats a DELETE until it finds nothing more, and adds up the rows.
func (s *Store) deleteAll(ctx context.Context, query string, at any, count *int64) error {
	for busy := 0; ; {
		began := time.Now()
		var n int64
		err := s.change(ctx, func(t *tx) error {
			result, err := t.ExecContext(ctx, s.engine.translate(query), at)
			if err == nil {
				n, err = result.RowsAffected()
			}
			return err
		})
		switch {
		case s.engine.classify(err) == failureBusy && busy < pruneTries: // others change the SQLite file all the time
			busy++
		case err != nil:
			return fmt.Errorf("sqlkeys: prune: %w", err)
		case n < pruneBatch:
			*count += n
			return nil
		default:
			*count += n
			busy = 0
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sqlkeys: prune: %w", ctx.Err())
		case <-time.After(time.Since(began)):
		}
	}
}
