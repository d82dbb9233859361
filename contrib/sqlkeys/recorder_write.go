package sqlkeys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// pieceRows is the number of rows that the recorder writes in one transaction.
// A backlog of any size makes progress if the database writes one piece within
// writeTimeout. On PostgreSQL a piece takes four round trips.
const pieceRows = 5000

// lastUsedInterval is the least time between two writes of a key's last use.
// The query of setLastUsed repeats it.
const lastUsedInterval = 15 * time.Minute

type usageRow struct {
	keyID   string
	hour    int64 // Unix seconds
	outcome int   // an index of outcomes
}

func (u usageRow) compare(v usageRow) int {
	return cmp.Or(cmp.Compare(u.keyID, v.keyID), cmp.Compare(u.hour, v.hour), cmp.Compare(u.outcome, v.outcome))
}

// A usagePiece is what one transaction adds to the usage.
type usagePiece struct {
	counts  map[usageRow]int64
	receipt receipt
}

// flush writes all pieces until one fails. Last uses come first: there are few
// of them most of the time, so they never wait for long.
func (r *Recorder) flush(ctx context.Context, hour time.Time) error {
	r.flushing.Lock()
	defer r.flushing.Unlock()
	r.takeLocked(hour, time.Now())
	if err := r.settleLocked(ctx); err != nil {
		return err
	}
	// All instances write in one order, so that they do not deadlock.
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(r.unused)), pieceRows) {
		if err := r.writeLastUsedLocked(ctx, ids); err != nil {
			return err
		}
	}
	for rows := range slices.Chunk(slices.SortedFunc(maps.Keys(r.waiting), usageRow.compare), pieceRows) {
		if err := r.writeUsageLocked(ctx, rows); err != nil {
			return err
		}
	}
	return nil
}

// takeLocked moves the counts out of the shards.
func (r *Recorder) takeLocked(hour, now time.Time) {
	for id, at := range r.used {
		if now.Sub(at) >= lastUsedInterval {
			delete(r.used, id)
		}
	}
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		keys := s.keys
		s.keys = make(map[string]*outcomeCounts, len(keys))
		s.mu.Unlock()
		for id, counts := range keys {
			r.takeKeyLocked(id, counts, hour, now)
		}
	}
}

func (r *Recorder) takeKeyLocked(id string, counts *outcomeCounts, hour, now time.Time) {
	limit := r.keys * recorderShards
	storable := len(id) <= maxUsageKeyID && isText(id)
	for outcome, n := range counts {
		row := usageRow{id, hour.Unix(), outcome}
		switch _, ok := r.waiting[row]; {
		case n == 0:
		case storable && (ok || r.waitingLocked() < limit):
			r.waiting[row] += n
		default:
			r.dropped.Add(uint64(n))
		}
	}
	if _, recent := r.used[id]; storable && !recent && counts[0]+counts[1] > 0 && len(r.used)+len(r.unused) < limit {
		r.unused[id] = now
	}
}

// waitingLocked returns the number of rows that are not known to be written.
func (r *Recorder) waitingLocked() int {
	n := len(r.waiting)
	if r.doubtful != nil {
		n += len(r.doubtful.counts)
	}
	return n
}

// settleLocked finds out what became of the piece that is in doubt.
func (r *Recorder) settleLocked(ctx context.Context) error {
	if r.doubtful == nil {
		return nil
	}
	committed, err := r.store.engine.committed(ctx, r.doubtful.receipt)
	if err != nil {
		return err
	}
	for row, n := range r.doubtful.counts {
		if committed {
			r.written.Add(uint64(n))
		} else {
			r.waiting[row] += n
		}
	}
	r.doubtful = nil
	return nil
}

// writeUsageLocked writes rows of r.waiting. If the commit fails, it asks the
// server whether the server has committed nevertheless.
func (r *Recorder) writeUsageLocked(ctx context.Context, rows []usageRow) error {
	piece := usagePiece{counts: make(map[usageRow]int64, len(rows))}
	for _, row := range rows {
		piece.counts[row] = r.waiting[row]
	}
	err := r.store.change(ctx, func(t *tx) error {
		if err := t.addUsage(rows, piece.counts); err != nil {
			return err
		}
		var err error
		piece.receipt, err = t.store.engine.receipt(ctx, t.querier)
		return err
	})
	if err != nil && piece.receipt == 0 {
		return err // it is not committed
	}
	for _, row := range rows {
		delete(r.waiting, row)
	}
	if err != nil {
		r.doubtful = &piece
		return errors.Join(err, r.settleLocked(ctx))
	}
	for _, n := range piece.counts {
		r.written.Add(uint64(n))
	}
	return nil
}

func (r *Recorder) writeLastUsedLocked(ctx context.Context, ids []string) error {
	if err := r.store.change(ctx, func(t *tx) error { return t.setLastUsed(ids, r.unused) }); err != nil {
		return err // writing a last use twice changes nothing
	}
	for _, id := range ids {
		r.used[id] = r.unused[id]
		delete(r.unused, id)
	}
	return nil
}

func (t *tx) addUsage(rows []usageRow, counts map[usageRow]int64) error {
	b := bulk{
		into:       `sqlkeys_usage (key_id, hour, outcome, requests)`,
		types:      []string{"text", "timestamptz", "text", "bigint"},
		onConflict: `ON CONFLICT (key_id, hour, outcome) DO UPDATE SET requests = sqlkeys_usage.requests + excluded.requests`,
	}
	for _, row := range rows {
		b.rows = append(b.rows, []any{row.keyID, t.instant(time.Unix(row.hour, 0)), string(outcomes[row.outcome]), counts[row]})
	}
	if err := t.insert(b); err != nil {
		return fmt.Errorf("sqlkeys: write the usage: %w", err)
	}
	return nil
}

func (t *tx) setLastUsed(ids []string, at map[string]time.Time) error {
	b := bulk{
		into:  `sqlkeys_last_used (key_id, last_used_at)`,
		types: []string{"text", "timestamptz"},
		onConflict: `ON CONFLICT (key_id) DO UPDATE SET last_used_at = excluded.last_used_at
			WHERE sqlkeys_last_used.last_used_at <= excluded.last_used_at - interval '15 minutes'`,
	}
	for _, id := range ids {
		b.rows = append(b.rows, []any{id, t.instant(at[id])})
	}
	if err := t.insert(b); err != nil {
		return fmt.Errorf("sqlkeys: write the last use: %w", err)
	}
	return nil
}
