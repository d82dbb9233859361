package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

var (
	environments = []string{string(sqlkeys.Development), string(sqlkeys.Staging), string(sqlkeys.Production)}
	formats      = []string{string(sqlkeys.FormatUUID), string(sqlkeys.FormatPrefixed)}
)

func (a *app) key() *cobra.Command {
	key := group("key", "Issue, edit, restrict, rotate, identify, import, disable, enable, revoke, list and show keys")
	key.AddCommand(a.keyIssue(), a.keyEdit(), a.keyScope(), a.keyNetwork(), a.keyRotate(), a.keyIdentify(), a.keyImport(), a.keyRevoke(), a.keyList(),
		a.one("show KEYID", "Show a key", a.showKey),
		a.changeKey("disable KEYID", "Refuse a key until it is enabled again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.Disable(ctx, id)
		}),
		a.changeKey("enable KEYID", "Accept a key again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.Enable(ctx, id)
		}))
	return key
}

func (a *app) changeKey(use, short string, f change) *cobra.Command {
	return a.one(use, short, a.then(a.showKey, f))
}

func (a *app) showKey(ctx context.Context, s *sqlkeys.Store, id string) error {
	k, err := s.Key(ctx, id)
	if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return err
	}
	return errors.Join(err, a.printKey(k, err))
}

func (a *app) keyIssue() *cobra.Command {
	var n sqlkeys.NewKey
	var env, format, expires, notBefore string
	var metadata []string
	var readRestrictions func() error
	issue := &cobra.Command{
		Use:   "issue",
		Short: "Issue a key, and print it as lines of a .env file",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) (err error) {
			n.Environment, n.Format = sqlkeys.Environment(env), sqlkeys.Format(format)
			if n.ExpiresAt, err = parseFuture("expires", expires); err != nil {
				return err
			}
			if n.NotBefore, err = parseFuture("not-before", notBefore); err != nil {
				return err
			}
			if n.Metadata, err = parsePairs("meta", metadata); err != nil {
				return err
			}
			if err := readRestrictions(); err != nil {
				return err
			}
			if err := a.checkFit(ctx, s, n.Format); err != nil {
				return err
			}
			return a.deliver(ctx, s, func(ctx context.Context) (sqlkeys.Issued, error) { return s.Issue(ctx, n) })
		}),
	}
	issue.Flags().StringVar(&n.SenderID, "sender", "", "`UUID` of the sender")
	issue.MarkFlagRequired("sender")
	issue.Flags().StringVar(&n.Name, "name", "", "`NAME` of the key, for people")
	issue.Flags().StringVar(&env, "env", string(sqlkeys.Production), "`ENVIRONMENT` of the key: "+strings.Join(environments, ", "))
	complete(issue, "env", environments)
	issue.Flags().StringVar(&expires, "expires", "", "`TIME` at which the key ends: 90d or 12h from now, a date (midnight UTC), or an RFC 3339 time (default never)")
	issue.Flags().StringVar(&notBefore, "not-before", "", "`TIME` at which the key begins to work, written as for -expires (default now)")
	issue.Flags().StringArrayVar(&metadata, "meta", nil, "`NAME=VALUE` to keep with the key; may be repeated")
	readRestrictions = restrictionFlags(issue, &n)
	a.newKeyFlags(issue, &format, "uuid")
	return issue
}

func (a *app) keyRotate() *cobra.Command {
	var rotation sqlkeys.Rotation
	var grace, format, expires string
	rotate := &cobra.Command{
		Use:   "rotate KEYID",
		Short: "Replace a key by a new one, and print it",
		Args:  oneArg,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, args []string) (err error) {
			rotation.Format = sqlkeys.Format(format)
			if rotation.Grace, err = parseSpan("grace", grace); err != nil {
				return err
			}
			if rotation.ExpiresAt, err = parseFuture("expires", expires); err != nil {
				return err
			}
			if err := a.checkRotationFit(ctx, s, args[0], rotation.Format); err != nil {
				return err
			}
			err = a.deliver(ctx, s, func(ctx context.Context) (sqlkeys.Issued, error) { return s.Rotate(ctx, args[0], rotation) })
			if errors.Is(err, errNotPrinted) {
				return fmt.Errorf("%w; %s stays rotated: issue another key", err, args[0])
			}
			return err
		}),
	}
	rotate.Flags().StringVar(&grace, "grace", "24h", "`DURATION` for which the old key still works, such as 24h or 7d")
	rotate.Flags().StringVar(&expires, "expires", "", "`TIME` at which the new key ends, written as for issue (default after the lifetime of the old one)")
	a.newKeyFlags(rotate, &format, "that of the old key")
	return rotate
}

// newKeyFlags adds the flags of commands that make a key.
func (a *app) newKeyFlags(cmd *cobra.Command, format *string, standard string) {
	cmd.Flags().StringVar(format, "format", "", "`FORMAT` of the key: "+strings.Join(formats, " or ")+" (default "+standard+")")
	complete(cmd, "format", formats)
	cmd.Flags().StringVar(&a.prefix, "prefix", "", "`PREFIX` of a prefixed key (default sender)")
	cmd.Flags().BoolVar(&a.force, "force", false, "issue the key even if no other key fits the peppers or the prefix: a service with different ones would refuse it")
	cmd.Flags().StringVar(&a.outPath, "out", "", "new `FILE` for the sender and the key, which only you can read (default standard output)")
}

// complete makes shells offer the values of a flag.
func complete(cmd *cobra.Command, flag string, values []string) {
	cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

func (a *app) keyRevoke() *cobra.Command {
	revoke := a.changeKey("revoke KEYID", "End a key for good", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		if !a.yes {
			k, err := s.Key(ctx, id)
			if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
				return err
			}
			if err := a.confirm(ctx, fmt.Sprintf("Revoke %s %q of sender %s for good?", k.ID, k.Name, k.SenderID)); err != nil {
				return err
			}
		}
		return s.Revoke(ctx, id)
	})
	revoke.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
	return revoke
}

func (a *app) keyList() *cobra.Command {
	var f sqlkeys.KeyFilter
	var expiring, state string
	list := &cobra.Command{
		Use:   "list",
		Short: "List keys, including revoked ones",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) (err error) {
			f.State = sqlkeys.State(state)
			if f.EndsBefore, err = parseFuture("expiring", expiring); err != nil {
				return err
			}
			return printAll(a, orMissing(s.Keys(ctx, f), named(ctx, s, f.SenderID, "")), listing[sqlkeys.Key]{
				header: []string{"KEY", "SENDER", "STATE", "NAME", "ENVIRONMENT", "CREATED", "EXPIRES", "LAST USED", "SCOPES", "NETWORKS"},
				row:    keyRow,
				json:   keyJSON,
			})
		}),
	}
	list.Flags().StringVar(&f.SenderID, "sender", "", "`UUID` of a sender (default all)")
	stateFlag(list, &state, sqlkeys.Active, sqlkeys.Pending, sqlkeys.Retiring, sqlkeys.Rotated, sqlkeys.Disabled, sqlkeys.Expired, sqlkeys.Revoked)
	list.Flags().StringVar(&expiring, "expiring", "", "only keys that work now and end within this `TIME`, such as 14d, or before a date or an RFC 3339 time")
	return list
}

// stateFlag adds the flag that selects rows in one of the states.
func stateFlag(list *cobra.Command, state *string, states ...sqlkeys.State) {
	var names []string
	for _, s := range states {
		names = append(names, string(s))
	}
	list.Flags().StringVar(state, "state", "", "only those in this `STATE`: "+strings.Join(names, ", "))
	complete(list, "state", names)
}
