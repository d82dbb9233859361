package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestAnHourIsClosedAMinuteAfterItsEnd(t *testing.T) {
	at := func(clock string) time.Time {
		v, err := time.Parse(time.TimeOnly, clock)
		require.NoError(t, err)
		return v
	}
	require.Equal(t, at("11:00:00"), closedUntil(at("12:00:59")))
	require.Equal(t, at("12:00:00"), closedUntil(at("12:01:00")))
}

func TestUsageIsExportedForBilling(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		key := s.issue(sender)
		db, err := sqlkeys.OpenDB(s.source)
		require.NoError(t, err)
		defer db.Close()
		thisHour := time.Now().UTC().Truncate(time.Hour)
		last := thisHour.Add(-2 * time.Hour)
		for _, hour := range []time.Time{thisHour, last, last.Add(-time.Hour), last.Add(-48 * time.Hour)} {
			for _, outcome := range []string{"limited", "admitted"} {
				var at any = hour
				query := `INSERT INTO sqlkeys_usage VALUES ($1, $2, $3, 5)`
				if !strings.HasPrefix(s.source, "postgres") {
					at = hour.UnixMilli()
				}
				_, err := db.Exec(query, key, at, outcome)
				require.NoError(t, err)
			}
		}
		want := "id,sender_id,key_id,hour,outcome,requests\n"
		var objects []string
		for _, hour := range []time.Time{last.Add(-time.Hour), last} {
			for _, outcome := range []string{"admitted", "limited"} {
				id, at := key+"/"+hour.Format("2006-01-02T15Z")+"/"+outcome, hour.Format(time.RFC3339)
				want += fmt.Sprintf("%s,%s,%s,%s,%s,5\n", id, sender, key, at, outcome)
				objects = append(objects, fmt.Sprintf(`{"id":"%s","sender_id":"%s","key_id":"%s","hour":"%s","outcome":"%s","requests":5}`, id, sender, key, at, outcome))
			}
		}
		since := last.Add(-time.Hour).Format(time.RFC3339)
		require.Equal(t, want, s.ok("usage", "-format", "csv", "-since", since))
		require.JSONEq(t, "["+strings.Join(objects, ",")+"]", s.ok("usage", "-format", "json", "-since", since))
		require.Equal(t, strings.Join(strings.SplitAfter(want, "\n")[:3], ""), s.ok("usage", "-format", "csv", "-since", since, "-until", last.Format(time.RFC3339)))
		require.Len(t, strings.Split(s.ok("usage", "-since", since, "-until", last.Format(time.RFC3339)), "\n"), 4, "a table is limited likewise")
		require.Equal(t, "id,sender_id,key_id,hour,outcome,requests\n", s.ok("usage", "-format", "csv", "-since", thisHour.Format(time.RFC3339)))
		require.Equal(t, result{2, "", "senderkeys: -format \"xml\": invalid: want csv or json\n"}, s.with("", "usage", "-format", "xml"))
		require.Equal(t, result{3, "id,sender_id,key_id,hour,outcome,requests\n", "senderkeys: key key_aaaaaaaaaaaaaaaa: not found\n"}, s.with("", "usage", "-format", "csv", "-key", "key_aaaaaaaaaaaaaaaa"))
	})
}
