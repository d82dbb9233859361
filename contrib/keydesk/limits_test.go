package keydesk_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
)

// brokenLimiter is a limiter whose server is down.
type brokenLimiter struct{}

func (brokenLimiter) Take(context.Context, string, []senderauth.Charge) ([]senderauth.Balance, error) {
	return nil, errors.New("redis at 10.0.0.7 is down")
}

func TestLimitsShowWhatIsLeftWithoutTakingAnything(t *testing.T) {
	limiter := senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})
	s := newSite(t, keydesk.Config{Limits: limits, Limiter: limiter})
	plan := map[string]senderauth.Limit{"messages": {Requests: 5, Per: time.Hour}, "export": senderauth.Unlimited(), "default": senderauth.Blocked()}
	require.NoError(t, s.SetLimits(t.Context(), senderA, plan))
	_, err := limiter.Take(t.Context(), senderA, []senderauth.Charge{{Name: "messages", Limit: plan["messages"], Cost: 2}})
	require.NoError(t, err)

	for range 9 {
		s.get(t, senderA, "/limits").want(t, 200,
			`<strong><bdi>messages</bdi></strong> <span class="badge operator">own plan</span></th><td role="cell" data-label="Allows">5 per hour, at most 5 at once</td>`,
			`3 of 5, full in 24m0s`, `blocked: every request is refused`,
			`<bdi>export</bdi></strong> <span class="badge operator">own plan</span> <span class="badge warn">not used by this service</span></th><td role="cell" data-label="Allows">unlimited</td>`)
	}
	page := s.get(t, senderB, "/limits")
	page.want(t, 200, "200 per minute, at most 50 at once", "50 of 50<", "60 of 60<")
	require.NotContains(t, page.body, "own plan")
	s.get(t, operator, "/limits?sender="+senderA).want(t, 200, "3 of 5")
	s.get(t, operator, "/limits").want(t, 200, "Enter the ID of a sender")
}

func TestAllowanceIsShownWithItsPeriod(t *testing.T) {
	allowance := map[string]senderauth.Limit{"messages": senderauth.PerMonth(10_000, nil)}
	s := newSite(t, keydesk.Config{Limits: allowance, Limiter: senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{})})
	s.get(t, senderA, "/limits").want(t, 200, "10000 in each month, by the clock of UTC", "10\u202f000 of 10\u202f000")
}

func TestLimitsAreShownIfNobodySaysWhatIsLeft(t *testing.T) {
	without := newSite(t, keydesk.Config{Limits: limits})
	page := without.get(t, senderA, "/limits")
	page.want(t, 200, "200 per minute, at most 50 at once")
	require.NotContains(t, page.body, "Left right now")

	broken := newSite(t, keydesk.Config{Limits: limits, Limiter: brokenLimiter{}})
	page = broken.get(t, senderA, "/limits")
	page.want(t, 200, "What is left cannot be read right now.", "200 per minute, at most 50 at once")
	require.NotContains(t, page.body, "10.0.0.7")
	require.Contains(t, broken.log.String(), "10.0.0.7")

	without.get(t, "cccccccc-3a0e-4d6e-9c2b-0f7f5a1c0a11", "/limits").want(t, 200, "200 per minute, at most 50 at once")

	none := newSite(t, keydesk.Config{})
	none.get(t, senderA, "/limits").want(t, 200, "No limits are shown here.")
}
