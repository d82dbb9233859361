package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) prune() *cobra.Command {
	var r sqlkeys.Retention
	var audit, usage string
	prune := &cobra.Command{
		Use:   "prune",
		Short: "Delete old audit entries and usage, in small batches",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) (err error) {
			if audit == "" && usage == "" {
				return fmt.Errorf("prune: %w: give -audit-older-than, -usage-older-than or both", sqlkeys.ErrInvalid)
			}
			if audit != "" {
				if r.AuditBefore, err = parsePast("audit-older-than", audit); err != nil {
					return err
				}
			}
			if usage != "" {
				if r.UsageBefore, err = parsePast("usage-older-than", usage); err != nil {
					return err
				}
			}
			p := a.progress("Pruning", "")
			defer p.end()
			done, err := s.Prune(ctx, r)
			p.end()
			return errors.Join(err, a.printPruned(done, r.DryRun))
		}),
	}
	prune.Flags().StringVar(&audit, "audit-older-than", "", "delete audit entries older than this `TIME`, such as 400d, or from before a date or an RFC 3339 time")
	prune.Flags().StringVar(&usage, "usage-older-than", "", "delete the usage of hours that ended before this `TIME`, written likewise")
	prune.Flags().BoolVar(&r.DryRun, "dry-run", false, "only count what would be deleted")
	return prune
}

func (a *app) printPruned(done sqlkeys.Pruned, dryRun bool) error {
	if a.json {
		return a.printJSON(struct {
			Audit  int64 `json:"audit"`
			Usage  int64 `json:"usage"`
			DryRun bool  `json:"dry_run"`
		}{done.Audit, done.Usage, dryRun})
	}
	verb := "deleted"
	if dryRun {
		verb = "would be deleted"
	}
	_, err := fmt.Fprintf(a.out, "audit entries %s: %d\nusage rows %s: %d\n", verb, done.Audit, verb, done.Usage)
	return err
}
