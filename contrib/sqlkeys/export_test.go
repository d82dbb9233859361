package sqlkeys

import (
	"context"
	"strings"
)

// A Plan explains how the database reads one page of a list.
type Plan func(ctx context.Context, p Paging) (string, error)

func (s *Store) KeysPlan(f KeyFilter) Plan {
	l, err := s.keyList(f)
	return plan(s, l, err)
}

func (s *Store) SendersPlan(f SenderFilter) Plan {
	l, err := senderList(f)
	return plan(s, l, err)
}

func (s *Store) AuditPlan(f AuditFilter) Plan {
	l, err := auditList(f)
	return plan(s, l, err)
}

func (s *Store) UsagePlan(f UsageFilter) Plan {
	l, err := s.usageList(f)
	return plan(s, l, err)
}

func plan[T any](s *Store, l *list[T], err error) Plan {
	return func(ctx context.Context, p Paging) (string, error) {
		if err != nil {
			return "", err
		}
		q, err := l.paged(s.engine, p)
		if err != nil {
			return "", err
		}
		_, isSQLite := s.engine.(*sqlite)
		explain := "EXPLAIN "
		if isSQLite {
			explain = "EXPLAIN QUERY PLAN "
		}
		rows, err := s.db.QueryContext(ctx, explain+s.engine.translate(q.text), q.args...)
		if err != nil {
			return "", err
		}
		defer rows.Close()
		var lines []string
		for rows.Next() {
			var line string
			var n int
			dest := []any{&line}
			if isSQLite {
				dest = []any{&n, &n, &n, &line}
			}
			if err := rows.Scan(dest...); err != nil {
				return "", err
			}
			lines = append(lines, line)
		}
		return strings.Join(lines, "\n"), rows.Err()
	}
}
