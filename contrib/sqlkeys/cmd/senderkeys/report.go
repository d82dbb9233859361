package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) usage() *cobra.Command {
	var f sqlkeys.UsageFilter
	var since string
	usage := &cobra.Command{
		Use:   "usage",
		Short: "Show requests by key, hour and outcome",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			var err error
			if f.Since, err = parsePast("since", since); err != nil {
				return err
			}
			return printAll(a, orMissing(s.Usage(ctx, f), named(ctx, s, f.SenderID, f.KeyID)), listing[sqlkeys.Usage]{
				header: []string{"HOUR", "SENDER", "KEY", "OUTCOME", "REQUESTS"},
				row: func(u sqlkeys.Usage) []string {
					return []string{when(u.Hour), u.SenderID, u.KeyID, string(u.Outcome), strconv.FormatInt(u.Requests, 10)}
				},
				json: usageJSON,
			})
		}),
	}
	usage.Flags().StringVar(&f.SenderID, "sender", "", "`UUID` of a sender (default all)")
	usage.Flags().StringVar(&f.KeyID, "key", "", "`ID` of a key (default all)")
	usage.Flags().StringVar(&since, "since", "7d", "`TIME` to start at: 30d or 12h ago, a date (midnight UTC), or an RFC 3339 time")
	return usage
}

func (a *app) audit() *cobra.Command {
	var f sqlkeys.AuditFilter
	audit := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and when",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			return printAll(a, orMissing(s.Audit(ctx, f), named(ctx, s, f.SenderID, f.KeyID)), listing[sqlkeys.AuditEntry]{
				header: []string{"AT", "ACTOR", "ACTION", "SENDER", "KEY", "DETAIL"},
				row: func(e sqlkeys.AuditEntry) []string {
					return []string{when(e.At), e.Actor, e.Action, e.SenderID, e.KeyID, pairsText(e.Detail)}
				},
				json: auditJSON,
			})
		}),
	}
	audit.Flags().StringVar(&f.SenderID, "sender", "", "`UUID` of a sender (default all)")
	audit.Flags().StringVar(&f.KeyID, "key", "", "`ID` of a key (default all)")
	return audit
}
