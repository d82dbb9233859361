package keydesk_test

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func TestUsageIsDrawnByHourAndOutcome(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	a := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	b := s.issue(t, sqlkeys.NewKey{SenderID: senderA}).Key.ID
	other := s.issue(t, sqlkeys.NewKey{SenderID: senderB}).Key.ID
	now := time.Now().UTC()
	s.count(t, a, now, senderauth.Admitted, 30)
	s.count(t, b, now, senderauth.Admitted, 3)
	s.count(t, b, now, senderauth.Limited, 7)
	s.count(t, b, now.Add(-23*time.Hour), senderauth.InvalidKey, 20)
	s.count(t, b, now.Add(-30*time.Hour), senderauth.Unavailable, 4000)
	s.count(t, other, now, senderauth.Admitted, 500)

	hour := func(ago time.Duration) string {
		return now.Add(-ago).Truncate(time.Hour).Format("2 Jan, 15:04 UTC")
	}
	day := s.get(t, senderA, "/usage")
	day.want(t, 200, "Requests in the last 24 hours. The highest bar has 40.",
		hour(0)+": 33 admitted, 7 limited<", hour(23*time.Hour)+": 20 invalid_key<", hour(5*time.Hour)+": no requests<",
		"401: the key did not work any more, or not yet", "429: more than a limit allows")
	// 40 of 40 are the whole height of 216, and a bar is stacked from the ground.
	bars := regexp.MustCompile(`<rect class="(admitted|limited|refused|broken)" x="[\d.]+" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"`)
	require.Equal(t, []string{
		"refused 120 108", "admitted 49.8 178.2", "limited 12 37.8",
	}, shapes(bars, day.body))
	require.Equal(t, [][]string{{"33"}, {"20"}, {"7"}, {"60"}}, numbers(day.body))

	week := s.get(t, senderA, "/usage?period=7d")
	week.want(t, 200, "Requests in the last 7 days. The highest bar has 4000.", "unavailable")
	require.Equal(t, [][]string{{"4\u202f000"}, {"33"}, {"20"}, {"7"}, {"4\u202f060"}}, numbers(week.body))
	require.Len(t, regexp.MustCompile(`<rect class="column"`).FindAllString(week.body, -1), 7*24)

	month := s.get(t, senderA, "/usage?period=30d")
	month.want(t, 200, "Requests in the last 30 days.")
	require.Len(t, regexp.MustCompile(`<rect class="column"`).FindAllString(month.body, -1), 30)

	one := s.get(t, senderA, "/usage?key="+a)
	one.want(t, 200, hour(0)+": 30 admitted<", a)
	require.Equal(t, [][]string{{"30"}, {"30"}}, numbers(one.body))

	s.get(t, operator, "/usage?sender="+senderB).want(t, 200, "500 admitted")
	s.get(t, operator, "/usage").want(t, 200, "Enter the ID of a sender")
	s.get(t, operator, "/usage?sender=acme").want(t, 404, "There is no sender with that ID.")
	s.get(t, senderB, "/usage?period=nonsense").want(t, 200, "Requests in the last 24 hours.")
}

func shapes(re *regexp.Regexp, body string) (all []string) {
	for _, m := range re.FindAllStringSubmatch(body, -1) {
		all = append(all, fmt.Sprintf("%s %s %s", m[1], m[2], m[3]))
	}
	return all
}

// numbers returns the column of numbers of the table.
func numbers(body string) (all [][]string) {
	for _, m := range regexp.MustCompile(`data-label="Requests" class="number">([^<]+)<`).FindAllStringSubmatch(body, -1) {
		all = append(all, m[1:])
	}
	return all
}

func TestUsageWithoutRequestsSaysSo(t *testing.T) {
	s := newSite(t, keydesk.Config{})
	s.get(t, senderA, "/usage").want(t, 200, "No requests in the last 24 hours.", "The highest bar has 0.")
}
