package sqlkeys_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// fill stores n keys of 1,000 senders, with an audit entry and usage of one hour each.
// Ten keys are in each state but active.
func fill(t testing.TB, s fixture, n int) {
	queries := []string{
		`ALTER TABLE sqlkeys_senders DISABLE TRIGGER USER`,
		`ALTER TABLE sqlkeys_keys DISABLE TRIGGER USER`,
		`INSERT INTO sqlkeys_senders (id, created_at) SELECT gen_random_uuid(), now() - i * interval '1 minute' FROM generate_series(1, 1000) i`,
		`INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment, created_at, expires_at)
			SELECT 'key_' || i, s.id, sha256(i::text::bytea), 'uuid', 'production', now() - i * interval '1 second', now() + i * interval '1 day' FROM generate_series(1, COUNT) i
			JOIN (SELECT id, row_number() OVER () AS n FROM sqlkeys_senders) s ON s.n = i % 1000 + 1`,
		`INSERT INTO sqlkeys_audit (at, actor, action, sender_id, key_id) SELECT created_at, 'me', 'key.issue', sender_id, id FROM sqlkeys_keys`,
		`INSERT INTO sqlkeys_usage SELECT 'key_' || i, date_trunc('hour', now()) - (i % 168) * interval '1 hour', 'admitted', i FROM generate_series(1, COUNT) i`,
		`INSERT INTO sqlkeys_last_used SELECT id, created_at FROM sqlkeys_keys`,
	}
	in := `now() %s interval '1 day'`
	if s.sqlite() {
		queries = []string{
			`DROP TRIGGER sqlkeys_senders_insert`,
			`DROP TRIGGER sqlkeys_keys_insert`,
			`DROP TRIGGER sqlkeys_keys_update`,
			`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
				INSERT INTO sqlkeys_senders (id, created_at) SELECT printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i), i FROM n`,
			`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < COUNT)
				INSERT INTO sqlkeys_keys (id, sender_id, digest, format, environment, created_at, expires_at)
				SELECT 'key_' || i, printf('7a1de7b4-3a0e-4d6e-9c2b-%012x', i % 1000), randomblob(32), 'uuid', 'production', i, (unixepoch() + 86400 * i) * 1000 FROM n`,
			`INSERT INTO sqlkeys_audit (at, actor, action, sender_id, key_id) SELECT created_at, 'me', 'key.issue', sender_id, id FROM sqlkeys_keys`,
			`INSERT INTO sqlkeys_usage SELECT id, (unixepoch() / 3600 - created_at % 168) * 3600000, 'admitted', created_at FROM sqlkeys_keys`,
			`INSERT INTO sqlkeys_last_used SELECT id, created_at FROM sqlkeys_keys`,
		}
		in = `(unixepoch() %s 86400) * 1000`
	}
	ago, later := fmt.Sprintf(in, "-"), fmt.Sprintf(in, "+")
	for i, set := range []string{"expires_at = " + ago, "disabled_at = " + ago, "revoked_at = " + ago, "not_before = " + later, "grace_until = " + ago, "grace_until = " + later} {
		var ids []string
		for j := range 10 {
			ids = append(ids, fmt.Sprintf("'key_%d'", n/10*j+i+1))
		}
		queries = append(queries, `UPDATE sqlkeys_keys SET `+set+` WHERE id IN (`+strings.Join(ids, ",")+`)`)
	}
	for _, query := range append(queries, `ANALYZE`) {
		_, err := s.db.Exec(strings.ReplaceAll(query, "COUNT", strconv.Itoa(n)))
		require.NoError(t, err, query)
	}
}

// A pageOf is one kind of page, as people and programs ask for it.
type pageOf struct {
	name string
	plan sqlkeys.Plan
	read func(p sqlkeys.Paging) (items int, next string, err error)
}

func pagesOf(ctx context.Context, s fixture, sender string) (all []pageOf) {
	add := func(name string, plan sqlkeys.Plan, read func(p sqlkeys.Paging) (int, string, error)) {
		all = append(all, pageOf{name, plan, read})
	}
	keys := func(name string, f sqlkeys.KeyFilter) {
		add("keys/"+name, s.KeysPlan(f), func(p sqlkeys.Paging) (int, string, error) {
			page, err := s.KeysPage(ctx, f, p)
			return len(page.Items), page.Next, err
		})
	}
	keys("all", sqlkeys.KeyFilter{})
	keys("of one sender", sqlkeys.KeyFilter{SenderID: sender})
	for _, state := range []sqlkeys.State{sqlkeys.Active, sqlkeys.Pending, sqlkeys.Retiring, sqlkeys.Rotated, sqlkeys.Disabled, sqlkeys.Expired, sqlkeys.Revoked} {
		keys(string(state), sqlkeys.KeyFilter{State: state})
	}
	keys("ending", sqlkeys.KeyFilter{EndsBefore: time.Now().Add(14 * 24 * time.Hour)})
	add("senders", s.SendersPlan(sqlkeys.SenderFilter{}), func(p sqlkeys.Paging) (int, string, error) {
		page, err := s.SendersPage(ctx, sqlkeys.SenderFilter{}, p)
		return len(page.Items), page.Next, err
	})
	for name, f := range map[string]sqlkeys.AuditFilter{"all": {}, "of one sender": {SenderID: sender}} {
		add("audit/"+name, s.AuditPlan(f), func(p sqlkeys.Paging) (int, string, error) {
			page, err := s.AuditPage(ctx, f, p)
			return len(page.Items), page.Next, err
		})
	}
	f := sqlkeys.UsageFilter{Since: time.Now().Add(-7 * 24 * time.Hour)}
	add("usage/all", s.UsagePlan(f), func(p sqlkeys.Paging) (int, string, error) {
		page, err := s.UsagePage(ctx, f, p)
		return len(page.Items), page.Next, err
	})
	return all
}

// few matches a plan that reads only the few keys in a rare state, or about to end.
var few = regexp.MustCompile(`sqlkeys_keys_(pending|rotated|disabled|revoked|ends)`)

// unordered matches a plan that reads more rows than it returns, to sort them or because
// no index has them in order.
var unordered = regexp.MustCompile(`Sort|Seq Scan on sqlkeys_(keys|audit|usage)|TEMP B-TREE|SCAN \w+$|SCAN k USING INDEX sqlkeys_keys_ends`)

func TestAnIndexServesEachOrder(t *testing.T) {
	onBothStores(t, func(t *testing.T, s fixture) {
		fill(t, s, 20_000)
		sender := everything(t, s.Senders(t.Context(), sqlkeys.SenderFilter{}))[500].ID
		for _, p := range pagesOf(t.Context(), s, sender) {
			_, next, err := p.read(sqlkeys.Paging{Limit: 5})
			require.NoError(t, err)
			for _, paging := range []sqlkeys.Paging{{}, {Reverse: true}, {After: next}, {After: next, Reverse: true}} {
				if p.name == "senders" && !s.sqlite() {
					continue // a thousand of them are few enough to be sorted
				}
				plan, err := p.plan(t.Context(), paging)
				require.NoError(t, err)
				if few.MatchString(plan) && !s.sqlite() {
					continue
				}
				require.NotRegexp(t, unordered, plan, "%s %+v", p.name, paging)
			}
		}
	})
}

// BenchmarkPage reads pages of 100 among a million keys, from the start and then from the
// middle or the end, and a sender's page of its 1,000 keys.
func BenchmarkPage(b *testing.B) {
	benchBoth(b, func(b *testing.B, source string) {
		s := open(b, source, sqlkeys.Config{})
		fill(b, s, 1_000_000)
		page, err := s.SendersPage(b.Context(), sqlkeys.SenderFilter{}, sqlkeys.Paging{})
		require.NoError(b, err)
		for _, p := range pagesOf(b.Context(), s, page.Items[50].ID) {
			limit := 100
			if p.name == "keys/of one sender" {
				limit = 1000
			}
			b.Run(p.name, func(b *testing.B) {
				plan, err := p.plan(b.Context(), sqlkeys.Paging{})
				require.NoError(b, err)
				b.Log(plan)
				var took []time.Duration
				var paging sqlkeys.Paging
				n := 0
				for b.Loop() {
					paging.Limit = limit
					at := time.Now()
					items, next, err := p.read(paging)
					require.NoError(b, err)
					took = append(took, time.Since(at))
					n = max(n, items)
					if paging.After = next; next == "" {
						paging.Reverse = !paging.Reverse
					}
				}
				b.ReportMetric(float64(n), "rows")
				b.ReportMetric(float64(percentile(took, 50).Microseconds())/1e3, "ms/p50")
				b.ReportMetric(float64(percentile(took, 100).Microseconds())/1e3, "ms/max")
			})
		}
	})
}
