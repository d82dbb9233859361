package senderauth_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata" // the tests need no zones of the operating system

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	require.NoError(t, err)
	return z
}

func TestPerDayAndPerMonth(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		limit      senderauth.Limit
		unit, text string
		zone       *time.Location
	}{
		{senderauth.PerDay(5, nil), "day", "day@UTC", time.UTC},
		{senderauth.PerMonth(5, time.UTC), "month", "month@UTC", time.UTC},
		{senderauth.PerMonth(5, berlin), "month", "month@Europe/Berlin", berlin},
		{senderauth.PerMinute(5), "", "", nil},
	} {
		require.NoError(t, c.limit.Validate())
		require.Equal(t, 5, c.limit.Requests)
		require.Equal(t, 5, c.limit.EffectiveBurst())
		require.Equal(t, c.unit, c.limit.Calendar.Unit())
		require.Equal(t, c.text, c.limit.Calendar.String())
		require.Equal(t, c.zone, c.limit.Calendar.Location())
	}
	require.Equal(t, senderauth.PerDay(5, nil), senderauth.PerDay(5, time.UTC))
	plans := map[senderauth.Limit]string{senderauth.PerMonth(5, berlin): "month", senderauth.PerDay(5, berlin): "day"}
	require.Equal(t, "month", plans[senderauth.PerMonth(5, berlin)])
	require.Equal(t, "day", plans[senderauth.PerDay(5, berlin)])
	require.Empty(t, plans[senderauth.PerMonth(5, nil)])
}

func TestAllowanceHasNeitherPerNorBurst(t *testing.T) {
	l := senderauth.PerMonth(0, nil)
	require.EqualError(t, l.Validate(), "Requests is 0, not in 1..1000000000")
	l.Per, l.Burst = time.Hour, 5
	require.EqualError(t, l.Validate(), "Requests is 0, not in 1..1000000000, Per is 1h0m0s beside Calendar month@UTC, which has its own period, "+
		"Burst is 5 beside Calendar month@UTC: all of an allowance may come at once")
	_, err := senderauth.New(senderauth.ValidatorFunc(knowsAll), senderauth.Config{
		Limits: limits(senderauth.PerDay(1_000_000_001, nil)), FailedAttempts: senderauth.PerDay(1, nil),
	})
	require.EqualError(t, err, `senderauth: Config.Limits["default"]: Requests is 1000000001, not in 1..1000000000`+"\n"+
		"senderauth: Config.FailedAttempts: Unlimited(), Blocked() and a Calendar have no meaning here: leave it zero, or set Requests and Per")
}

// The instants were worked out by hand, or are those of the IANA database.
func TestPeriodsOfZones(t *testing.T) {
	month, day := senderauth.PerMonth, senderauth.PerDay
	for _, c := range []struct {
		of              func(int, *time.Location) senderauth.Limit
		zone            string
		at, start, stop string
		length          time.Duration
	}{
		{month, "UTC", "2026-11-29T12:00:00Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z", 30 * 24 * time.Hour},
		{month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", 31 * 24 * time.Hour},
		{month, "UTC", "2028-02-01T00:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z", 29 * 24 * time.Hour},
		{month, "UTC", "2100-02-28T00:00:00Z", "2100-02-01T00:00:00Z", "2100-03-01T00:00:00Z", 28 * 24 * time.Hour},
		{month, "UTC", "1969-12-31T23:00:00Z", "1969-12-01T00:00:00Z", "1970-01-01T00:00:00Z", 31 * 24 * time.Hour},
		{month, "Asia/Tokyo", "2026-05-31T15:00:00Z", "2026-05-31T15:00:00Z", "2026-06-30T15:00:00Z", 30 * 24 * time.Hour},
		{month, "Europe/Berlin", "2026-03-15T00:00:00Z", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z", 31*24*time.Hour - time.Hour},
		{month, "America/New_York", "2026-11-29T00:00:00Z", "2026-11-01T04:00:00Z", "2026-12-01T05:00:00Z", 30*24*time.Hour + time.Hour},
		{day, "UTC", "1969-12-31T23:00:00Z", "1969-12-31T00:00:00Z", "1970-01-01T00:00:00Z", 24 * time.Hour},
		{day, "UTC", "2028-02-29T23:59:59Z", "2028-02-29T00:00:00Z", "2028-03-01T00:00:00Z", 24 * time.Hour},
		{day, "Europe/Berlin", "2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23 * time.Hour},
		{day, "Europe/Berlin", "2026-10-25T10:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25 * time.Hour},
		{day, "Australia/Lord_Howe", "2026-10-04T00:00:00Z", "2026-10-03T13:30:00Z", "2026-10-04T13:00:00Z", 23*time.Hour + 30*time.Minute},
		{day, "Asia/Kolkata", "2026-01-01T18:29:59Z", "2025-12-31T18:30:00Z", "2026-01-01T18:30:00Z", 24 * time.Hour},
		// Midnight does not exist: the day starts at 01:00.
		{day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z", 23 * time.Hour},
		{day, "America/Sao_Paulo", "2018-11-03T12:00:00Z", "2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", 24 * time.Hour},
		{day, "Asia/Beirut", "2025-03-30T12:00:00Z", "2025-03-29T22:00:00Z", "2025-03-30T21:00:00Z", 23 * time.Hour},
		// The clock goes from midnight back to 23:00 of the day before.
		{day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00Z", "2018-02-18T03:00:00Z", 25 * time.Hour},
		// The clock goes from 01:00 back to midnight: the day starts with the first one.
		{day, "America/Havana", "2025-11-02T04:30:00Z", "2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z", 25 * time.Hour},
		{day, "America/Havana", "2025-11-02T05:30:00Z", "2025-11-02T04:00:00Z", "2025-11-03T05:00:00Z", 25 * time.Hour},
		{day, "Asia/Amman", "2021-10-28T21:30:00Z", "2021-10-28T21:00:00Z", "2021-10-29T22:00:00Z", 25 * time.Hour},
		// One minute after midnight the clock goes back across it: the day before does not come back.
		{day, "America/St_Johns", "2006-10-29T02:30:30Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z", 25 * time.Hour},
		{day, "America/St_Johns", "2006-10-29T02:31:30Z", "2006-10-29T02:30:00Z", "2006-10-30T03:30:00Z", 25 * time.Hour},
		// A day that the calendar skipped is no period.
		{day, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", 24 * time.Hour},
		{day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z", 24 * time.Hour},
	} {
		t.Run(fmt.Sprint(c.zone, c.at), func(t *testing.T) {
			at, err := time.Parse(time.RFC3339, c.at)
			require.NoError(t, err)
			calendar := c.of(1, zone(t, c.zone)).Calendar
			start, stop := calendar.Bounds(calendar.Period(at))
			require.Equal(t, c.start, start.UTC().Format(time.RFC3339))
			require.Equal(t, c.stop, stop.UTC().Format(time.RFC3339))
			require.Equal(t, c.length, stop.Sub(start))
		})
	}
}

// Each instant is in one period, and periods follow one another without a gap, in
// zones with every kind of clock change.
func TestPeriodsFollowOneAnother(t *testing.T) {
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	names := []string{"UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "America/St_Johns", "Pacific/Apia", "Pacific/Kwajalein",
		"Australia/Lord_Howe", "Asia/Beirut", "Asia/Amman", "Africa/Cairo", "America/Asuncion", "Asia/Kathmandu", "Antarctica/Troll", "Africa/Casablanca"}
	for range 3000 {
		name := names[random.IntN(len(names))]
		for _, l := range []senderauth.Limit{senderauth.PerDay(1, zone(t, name)), senderauth.PerMonth(1, zone(t, name))} {
			at := time.Unix(random.Int64N(5_000_000_000), random.Int64N(1e9))
			c := l.Calendar
			n := c.Period(at)
			start, end := c.Bounds(n)
			require.False(t, at.Before(start) || !at.Before(end), "%v: %v is not in %v..%v", c, at, start, end)
			require.Equal(t, n, c.Period(start), "%v: %v", c, start)
			require.Equal(t, n, c.Period(end.Add(-1)), "%v: %v", c, end)
			next, _ := c.Bounds(n + 1)
			require.Equal(t, end, next)
			require.Greater(t, c.Period(end), n)
			// The date on the wall at the start is the period's, unless that was skipped.
			if local := start.In(c.Location()); c.Unit() == "month" {
				require.Equal(t, n, local.Year()*12+int(local.Month())-1)
			}
		}
	}
}
