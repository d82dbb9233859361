package main

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) usage() *cobra.Command {
	var f sqlkeys.UsageFilter
	var since, until, format string
	usage := &cobra.Command{
		Use:   "usage",
		Short: "Show requests by key, hour and outcome",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			var err error
			if f.Since, err = parsePast("since", since); err != nil {
				return err
			}
			if until != "" {
				if f.Until, err = parseInstant("until", until, -1); err != nil {
					return err
				}
			}
			print := a.printUsage
			switch format {
			case "":
			case "csv", "json":
				if closed := closedUntil(time.Now()); f.Until.IsZero() || f.Until.After(closed) {
					f.Until = closed
				}
				print = map[string]func(usages) error{"csv": a.exportCSV, "json": a.exportJSON}[format]
			default:
				return fmt.Errorf("-format %q: %w: want csv or json", format, sqlkeys.ErrInvalid)
			}
			return print(orMissing(s.Usage(ctx, f), named(ctx, s, f.SenderID, f.KeyID)))
		}),
	}
	usage.Flags().StringVar(&f.SenderID, "sender", "", "`UUID` of a sender (default all)")
	usage.Flags().StringVar(&f.KeyID, "key", "", "`ID` of a key (default all)")
	usage.Flags().StringVar(&since, "since", "7d", "`TIME` to start at: 30d or 12h ago, a date (midnight UTC), or an RFC 3339 time")
	usage.Flags().StringVar(&until, "until", "", "`TIME` to end before, written likewise (default now)")
	usage.Flags().StringVar(&format, "format", "", "csv or json, for billing: with the ID of each row, and only hours that are over")
	complete(usage, "format", []string{"csv", "json"})
	return usage
}

type usages = iter.Seq2[sqlkeys.Usage, error]

func (a *app) printUsage(all usages) error {
	return printAll(a, all, listing[sqlkeys.Usage]{
		header: []string{"HOUR", "SENDER", "KEY", "OUTCOME", "REQUESTS"},
		row: func(u sqlkeys.Usage) []string {
			return []string{when(u.Hour), u.SenderID, u.KeyID, string(u.Outcome), strconv.FormatInt(u.Requests, 10)}
		},
		json: usageJSON,
	})
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
