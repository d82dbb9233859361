package sqlkeys_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// aged stores n audit entries and n usage rows for each of the ages, in hours.
func aged(t *testing.T, s fixture, n int, ages ...int) {
	key := s.issue(t, sqlkeys.NewKey{}).Key
	_, err := s.db.Exec(`DELETE FROM sqlkeys_audit`)
	require.NoError(t, err)
	for _, age := range ages {
		hour := time.Now().Add(-time.Duration(age) * time.Hour).Truncate(time.Hour)
		for _, query := range map[bool][]string{
			false: {
				`INSERT INTO sqlkeys_audit (at, actor, action, sender_id) SELECT to_timestamp($1), 'me', 'test', '` + key.SenderID + `' FROM generate_series(1, $2)`,
				`INSERT INTO sqlkeys_usage SELECT '` + key.ID + `', to_timestamp($1), i::text, i FROM generate_series(1, $2) i`,
			},
			true: {
				`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
					INSERT INTO sqlkeys_audit (at, actor, action, sender_id) SELECT ?1 * 1000, 'me', 'test', '` + key.SenderID + `' FROM n`,
				`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
					INSERT INTO sqlkeys_usage SELECT '` + key.ID + `', ?1 * 1000, CAST(i AS TEXT), i FROM n`,
			},
		}[s.sqlite()] {
			_, err := s.db.Exec(query, hour.Unix(), n)
			require.NoError(t, err)
		}
	}
}

func (s fixture) rows(t *testing.T) (audit, usage int) {
	require.NoError(t, s.db.QueryRow(`SELECT (SELECT count(*) FROM sqlkeys_audit), (SELECT count(*) FROM sqlkeys_usage)`).Scan(&audit, &usage))
	return audit, usage
}

func TestPruneDeletesWhatIsOld(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		aged(t, s, 1300, 100, 50, 0)
		old := time.Now().Add(-75 * time.Hour)
		want := sqlkeys.Pruned{Audit: 1300, Usage: 1300}
		got, err := s.Prune(t.Context(), sqlkeys.Retention{AuditBefore: old, UsageBefore: old, DryRun: true})
		require.NoError(t, err)
		require.Equal(t, want, got)
		audit, usage := s.rows(t)
		require.Equal(t, []int{3900, 3900}, []int{audit, usage})

		got, err = s.Prune(t.Context(), sqlkeys.Retention{AuditBefore: old, UsageBefore: old})
		require.NoError(t, err)
		require.Equal(t, want, got)
		got, err = s.Prune(t.Context(), sqlkeys.Retention{AuditBefore: old, UsageBefore: old})
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Pruned{}, got)
		got, err = s.Prune(t.Context(), sqlkeys.Retention{})
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Pruned{}, got)
		got, err = s.Prune(t.Context(), sqlkeys.Retention{UsageBefore: time.Now()})
		require.NoError(t, err)
		require.Equal(t, sqlkeys.Pruned{Usage: 1300}, got, "the hour that has not ended stays")
		audit, usage = s.rows(t)
		require.Equal(t, []int{2600, 1300}, []int{audit, usage})
		for _, e := range everything(t, s.Audit(t.Context(), sqlkeys.AuditFilter{})) {
			require.True(t, e.At.After(old))
		}

		_, err = s.Prune(t.Context(), sqlkeys.Retention{AuditBefore: time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)})
		require.ErrorIs(t, err, sqlkeys.ErrInvalid)
		require.EqualError(t, err, "sqlkeys: Retention.AuditBefore: invalid: 2999-01-01T00:00:00Z is in the future")
	})
}

// While rows are deleted, keys are looked up, changed and counted.
func TestPruneIsSafeWhileServing(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		aged(t, s, 10_000, 100)
		k := s.issue(t, sqlkeys.NewKey{})
		uses := recorder(t, s, sqlkeys.RecorderConfig{Interval: 10 * time.Millisecond})
		pruned := make(chan error, 1)
		go func() {
			_, err := s.Prune(context.Background(), sqlkeys.Retention{AuditBefore: time.Now().Add(-time.Hour), UsageBefore: time.Now().Add(-time.Hour)})
			pruned <- err
		}()
		var err error
		n := 0
		for serving := true; serving; n++ {
			select {
			case err = <-pruned:
				serving = false
			default:
			}
			_, err := s.Validate(t.Context(), k.Credentials)
			require.NoError(t, err)
			require.NoError(t, s.Disable(t.Context(), k.Key.ID))
			require.NoError(t, s.Enable(t.Context(), k.Key.ID))
			nextMillisecond() // nobody changes keys all the time
			uses.Observe(t.Context(), senderauth.Event{Outcome: senderauth.Admitted, Sender: senderauth.Sender{KeyID: k.Key.ID}})
		}
		require.NoError(t, err)
		require.NoError(t, uses.Close(t.Context()))
		audit, _ := s.rows(t)
		require.Equal(t, 2+2*n, audit)
		var counted int64
		for _, u := range usageOf(t, s, sqlkeys.UsageFilter{KeyID: k.Key.ID}) {
			counted += u.Requests
		}
		require.EqualValues(t, n, counted)
	})
}

func TestInterruptedPruneSaysWhatItHasDeleted(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		aged(t, s, 3000, 100)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got, err := s.Prune(ctx, sqlkeys.Retention{AuditBefore: time.Now()})
		require.ErrorIs(t, err, context.Canceled)
		audit, _ := s.rows(t)
		require.EqualValues(t, 3000-got.Audit, audit)
	})
}

// What stays has no holes: a sum over a period is right or misses the days before some instant.
func TestInterruptedPruneHasDeletedTheOldest(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		aged(t, s, 1000, 50, 100)
		border := time.Now().Add(-75 * time.Hour)
		for table, column := range map[string]string{"sqlkeys_audit": "at", "sqlkeys_usage": "hour"} {
			refuse := fmt.Sprintf(`CREATE FUNCTION refuse_%[1]s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'interrupted'; END $$;
				CREATE TRIGGER refuse BEFORE DELETE ON %[1]s FOR EACH ROW WHEN (OLD.%[2]s > to_timestamp(%[3]d)) EXECUTE FUNCTION refuse_%[1]s()`, table, column, border.Unix())
			if s.sqlite() {
				refuse = fmt.Sprintf(`CREATE TRIGGER refuse_%[1]s BEFORE DELETE ON %[1]s WHEN OLD.%[2]s > %[3]d BEGIN SELECT RAISE(ABORT, 'interrupted'); END`, table, column, border.UnixMilli())
			}
			_, err := s.db.Exec(refuse)
			require.NoError(t, err)
		}
		got, err := s.Prune(t.Context(), sqlkeys.Retention{AuditBefore: time.Now()})
		require.ErrorContains(t, err, "interrupted")
		require.Equal(t, sqlkeys.Pruned{Audit: 1000}, got)
		got, err = s.Prune(t.Context(), sqlkeys.Retention{UsageBefore: time.Now()})
		require.ErrorContains(t, err, "interrupted")
		require.Equal(t, sqlkeys.Pruned{Usage: 1000}, got)
	})
}
