package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const limitUsage = "`NAME=LIMIT`, where LIMIT is REQUESTS/PER[:BURST], REQUESTS/day[@ZONE], REQUESTS/month[@ZONE], unlimited or blocked; may be repeated"

func (a *app) sender() *cobra.Command {
	sender := group("sender", "Create, edit, limit, disable, enable, list, show and delete senders")
	sender.AddCommand(a.senderCreate(), a.senderEdit(), a.senderLimit(), a.senderList(), a.senderDelete(),
		a.one("show SENDER", "Show a sender", a.showSender),
		a.changeSender("disable SENDER", "Refuse every request of a sender", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.DisableSender(ctx, id)
		}),
		a.changeSender("enable SENDER", "Accept a sender's keys again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.EnableSender(ctx, id)
		}))
	return sender
}

func (a *app) changeSender(use, short string, f change) *cobra.Command {
	return a.one(use, short, a.then(a.showSender, f))
}

func (a *app) showSender(ctx context.Context, s *sqlkeys.Store, id string) error {
	x, err := s.Sender(ctx, id)
	if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return err
	}
	return errors.Join(err, a.printSender(x, err))
}

func (a *app) senderCreate() *cobra.Command {
	var n sqlkeys.NewSender
	var limits, metadata []string
	create := &cobra.Command{
		Use:   "create",
		Short: "Create a sender, and print its ID",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			var err error
			if n.Limits, err = parseLimits(limits); err != nil {
				return err
			}
			if n.Metadata, err = parsePairs("meta", metadata); err != nil {
				return err
			}
			created, err := s.CreateSender(ctx, n)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(senderJSON(created, nil))
			}
			_, err = fmt.Fprintln(a.out, created.ID)
			return err
		}),
	}
	create.Flags().StringVar(&n.ID, "id", "", "`UUID` of the sender (default a random one)")
	create.Flags().StringVar(&n.Name, "name", "", "name of the sender, for people")
	create.Flags().StringArrayVar(&limits, "limit", nil, limitUsage)
	create.Flags().StringArrayVar(&metadata, "meta", nil, "`NAME=VALUE` to keep with the sender; may be repeated")
	return create
}

func (a *app) senderLimit() *cobra.Command {
	var plan []string
	var none bool
	limit := a.changeSender("limit SENDER", "Replace all limits of a sender, or remove them", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		if none == (len(plan) > 0) {
			return fmt.Errorf("sender limit: %w: give each limit with -limit, or -none", sqlkeys.ErrInvalid)
		}
		limits, err := parseLimits(plan)
		if err != nil {
			return err
		}
		return s.SetLimits(ctx, id, limits)
	})
	limit.Flags().StringArrayVar(&plan, "limit", nil, limitUsage)
	limit.Flags().BoolVar(&none, "none", false, "remove the limits: those of the service apply")
	return limit
}

func (a *app) senderList() *cobra.Command {
	var f sqlkeys.SenderFilter
	var state string
	list := &cobra.Command{
		Use:   "list",
		Short: "List senders",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			f.State = sqlkeys.State(state)
			return printAll(a, s.Senders(ctx, f), listing[sqlkeys.Sender]{
				header: []string{"SENDER", "STATE", "LIMITS", "CREATED", "NAME"},
				row: func(x sqlkeys.Sender) []string {
					return []string{x.ID, senderState(x), limitsText(x.Limits), when(x.CreatedAt), orDash(x.Name)}
				},
				json: senderJSON,
			})
		}),
	}
	stateFlag(list, &state, sqlkeys.Active, sqlkeys.Disabled)
	return list
}
