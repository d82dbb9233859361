// Command senderkeys manages senders and their API keys in PostgreSQL or
// SQLite.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	a := app{in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// Exit codes, as the help text lists them.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitNotFound = 3
	exitConflict = 4
)

const about = `senderkeys manages senders and their API keys in PostgreSQL or SQLite.

The database is the one of -db, or else of SENDERAUTH_DB: a PostgreSQL URL or
the path of a SQLite file. Where the service mixes peppers into its digests,
SENDERAUTH_PEPPERS holds them too: base64, the current one first, with commas
between. Flags are written with one dash or two.

Exit codes: 0 done; 1 failed; 2 wrong usage or input; 3 no such sender or key;
4 it exists already, or is revoked, expired, rotated or disabled.`

// An app is one run of the command.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string

	db, prefix string
	json, yes  bool
	started    bool // the arguments are right
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(twoDashes(args))
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(a.err, "senderkeys: "+strings.ReplaceAll(err.Error(), "sqlkeys: ", ""))
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(sqlkeys.ErrNotFound):
		return exitNotFound
	case is(sqlkeys.ErrDuplicate, sqlkeys.ErrRevoked, sqlkeys.ErrExpired, sqlkeys.ErrRotated, sqlkeys.ErrDisabled):
		return exitConflict
	case !a.started || is(sqlkeys.ErrInvalid):
		return exitUsage
	}
	return exitFailed
}

var oneDash = regexp.MustCompile(`^-[A-Za-z][A-Za-z]`)

// twoDashes lets long flags be written with one dash: there are no short ones
// that could be joined.
func twoDashes(args []string) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		if out[i] = arg; oneDash.MatchString(arg) {
			out[i] = "-" + arg
		}
	}
	return out
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:           "senderkeys",
		Short:         "Manage senders and their API keys",
		Long:          about,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&a.db, "db", "", "PostgreSQL URL or path of a SQLite file (SENDERAUTH_DB)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.AddCommand(a.migrate(), a.sender(), a.key(), a.usage(), a.audit())
	return root
}

// do makes a command that works on a store.
func (a *app) do(f func(ctx context.Context, s *sqlkeys.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, s, done, err := a.open(cmd.Context(), sqlkeys.Config{})
		if err != nil {
			return err
		}
		return errors.Join(f(ctx, s, args), done())
	}
}

func (a *app) open(ctx context.Context, cfg sqlkeys.Config) (context.Context, *sqlkeys.Store, func() error, error) {
	source := a.db
	if source == "" {
		source = a.env("SENDERAUTH_DB")
	}
	if source == "" {
		return nil, nil, nil, errors.New("no database: give -db, or set SENDERAUTH_DB, to a PostgreSQL URL or the path of a SQLite file")
	}
	a.started = true
	if !cfg.Migrate && !strings.Contains(source, "://") && !strings.HasPrefix(source, "file:") && !strings.Contains(source, "=") {
		// A mistyped path is not to become a file.
		if _, err := os.Stat(source); err != nil {
			return nil, nil, nil, err
		}
	}
	var err error
	if cfg.Peppers, err = sqlkeys.ParsePeppers(a.env("SENDERAUTH_PEPPERS")); err != nil {
		return nil, nil, nil, fmt.Errorf("SENDERAUTH_PEPPERS: %w", err)
	}
	cfg.Prefix = a.prefix
	if u, err := user.Current(); err == nil {
		ctx = sqlkeys.WithActor(ctx, u.Username)
	}
	db, err := sqlkeys.OpenDB(source)
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := sqlkeys.Open(ctx, db, cfg)
	if err != nil {
		db.Close()
		return nil, nil, nil, err
	}
	return ctx, s, func() error { return errors.Join(s.Close(), db.Close()) }, nil
}

func (a *app) migrate() *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Create the tables, or bring them up to date",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, _, done, err := a.open(cmd.Context(), sqlkeys.Config{Migrate: true})
			if err != nil {
				return err
			}
			return done()
		},
	}
}

// group makes a command of commands. Left to itself cobra takes a wrong one for
// a question about the right ones.
func group(use, short string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
}

func (a *app) sender() *cobra.Command {
	sender := group("sender", "Create, limit, disable, enable and list senders")
	const limitUsage = "NAME=REQUESTS/PER[:BURST], NAME=unlimited or NAME=blocked; may be repeated"

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
			made, err := s.CreateSender(ctx, n)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(senderJSON(made))
			}
			fmt.Fprintln(a.out, made.ID)
			return nil
		}),
	}
	create.Flags().StringVar(&n.ID, "id", "", "UUID of the sender; a random one where it is left out")
	create.Flags().StringArrayVar(&limits, "limit", nil, limitUsage)
	create.Flags().StringArrayVar(&metadata, "meta", nil, "NAME=VALUE; may be repeated")

	var plan []string
	limit := a.change("limit SENDER", "Replace the limits of a sender; without -limit it has none of its own", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		limits, err := parseLimits(plan)
		if err != nil {
			return err
		}
		return s.SetLimits(ctx, id, limits)
	})
	limit.Flags().StringArrayVar(&plan, "limit", nil, limitUsage)

	list := &cobra.Command{
		Use:   "list",
		Short: "List all senders",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			return printAll(a, s.Senders(ctx), senderJSON, "SENDER\tSTATE\tLIMITS\tCREATED", func(x sqlkeys.Sender) string {
				return strings.Join([]string{x.ID, senderState(x), limitsText(x.Limits), when(x.CreatedAt)}, "\t")
			})
		}),
	}
	sender.AddCommand(create, limit, list,
		a.change("disable SENDER", "Refuse every request of a sender", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.DisableSender(ctx, id)
		}),
		a.change("enable SENDER", "Accept a sender's keys again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.EnableSender(ctx, id)
		}))
	return sender
}

// change is a command that changes one sender or key, and prints nothing.
func (a *app) change(use, short string, f func(context.Context, *sqlkeys.Store, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, args []string) error {
			return f(ctx, s, args[0])
		}),
	}
}

func (a *app) key() *cobra.Command {
	key := group("key", "Issue, rotate, disable, enable, revoke, list and show keys")
	environments := []string{string(sqlkeys.Development), string(sqlkeys.Staging), string(sqlkeys.Production)}
	formats := []string{string(sqlkeys.FormatUUID), string(sqlkeys.FormatPrefixed)}
	oneOf := func(cmd *cobra.Command, flag string, values []string) {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}

	var n sqlkeys.NewKey
	var env, format, expires, notBefore string
	var metadata []string
	issue := &cobra.Command{
		Use:   "issue",
		Short: "Issue a key, and print it as lines for a .env file",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) (err error) {
			n.Environment, n.Format = sqlkeys.Environment(env), sqlkeys.Format(format)
			if n.ExpiresAt, err = parseInstant("expires", expires); err != nil {
				return err
			}
			if n.NotBefore, err = parseInstant("not-before", notBefore); err != nil {
				return err
			}
			if n.Metadata, err = parsePairs("meta", metadata); err != nil {
				return err
			}
			issued, err := s.Issue(ctx, n)
			if err != nil {
				return err
			}
			return a.printIssued(issued)
		}),
	}
	issue.Flags().StringVar(&n.SenderID, "sender", "", "UUID of the sender")
	issue.MarkFlagRequired("sender")
	issue.Flags().StringVar(&n.Name, "name", "", "name of the key, for people")
	issue.Flags().StringVar(&env, "env", string(sqlkeys.Production), strings.Join(environments, ", "))
	issue.Flags().StringVar(&expires, "expires", "", "when it ends: 90d or 12h from now, or an RFC 3339 time; never where it is left out")
	issue.Flags().StringVar(&notBefore, "not-before", "", "when it begins, written likewise; at once where it is left out")
	issue.Flags().StringArrayVar(&metadata, "meta", nil, "NAME=VALUE; may be repeated")

	var rotation sqlkeys.Rotation
	var grace, rotateFormat, rotateExpires string
	rotate := &cobra.Command{
		Use:   "rotate KEYID",
		Short: "Issue a key in the place of another, and print it",
		Args:  cobra.ExactArgs(1),
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, args []string) (err error) {
			rotation.Format = sqlkeys.Format(rotateFormat)
			if rotation.Grace, err = parseSpan("grace", grace); err != nil {
				return err
			}
			if rotation.ExpiresAt, err = parseInstant("expires", rotateExpires); err != nil {
				return err
			}
			issued, err := s.Rotate(ctx, args[0], rotation)
			if err != nil {
				return err
			}
			return a.printIssued(issued)
		}),
	}
	rotate.Flags().StringVar(&grace, "grace", "24h", "how long the old key goes on working")
	rotate.Flags().StringVar(&rotateExpires, "expires", "", "when the new key ends; where it is left out, after as long as the old one was given")
	for cmd, f := range map[*cobra.Command]*string{issue: &format, rotate: &rotateFormat} {
		cmd.Flags().StringVar(f, "format", "", strings.Join(formats, " or ")+"; uuid, or that of the old key, where it is left out")
		cmd.Flags().StringVar(&a.prefix, "prefix", "", "what a prefixed key starts with (default sender)")
		oneOf(cmd, "format", formats)
	}
	oneOf(issue, "env", environments)

	revoke := a.change("revoke KEYID", "End a key for good", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		k, err := s.Key(ctx, id)
		if err != nil {
			return err
		}
		if err := a.confirm(fmt.Sprintf("Revoke %s %q of sender %s for good?", k.ID, k.Name, k.SenderID)); err != nil {
			return err
		}
		return s.Revoke(ctx, id)
	})
	revoke.Flags().BoolVar(&a.yes, "yes", false, "do not ask")

	var ofSender string
	list := &cobra.Command{
		Use:   "list",
		Short: "List keys, revoked ones included",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			return printAll(a, s.Keys(ctx, ofSender), keyJSON, keyHeader, keyRow)
		}),
	}
	list.Flags().StringVar(&ofSender, "sender", "", "UUID of a sender; all where it is left out")

	show := a.change("show KEYID", "Show all that is known of a key", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		k, err := s.Key(ctx, id)
		if err != nil {
			return err
		}
		return a.printKey(k)
	})
	key.AddCommand(issue, rotate, revoke, list, show,
		a.change("disable KEYID", "Refuse a key until it is enabled again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.Disable(ctx, id)
		}),
		a.change("enable KEYID", "Accept a key again", func(ctx context.Context, s *sqlkeys.Store, id string) error {
			return s.Enable(ctx, id)
		}))
	return key
}

func (a *app) usage() *cobra.Command {
	var f sqlkeys.UsageFilter
	var since string
	usage := &cobra.Command{
		Use:   "usage",
		Short: "Show requests by key, hour and outcome",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			span, err := parseSpan("since", since)
			if err != nil {
				return err
			}
			if span < 0 {
				return fmt.Errorf("-since %q: %w: it is below 0", since, sqlkeys.ErrInvalid)
			}
			f.Since = time.Now().Add(-span)
			return printAll(a, s.Usage(ctx, f), usageJSON, "HOUR\tSENDER\tKEY\tOUTCOME\tREQUESTS", func(u sqlkeys.Usage) string {
				return strings.Join([]string{when(u.Hour), u.SenderID, u.KeyID, string(u.Outcome), strconv.FormatInt(u.Requests, 10)}, "\t")
			})
		}),
	}
	usage.Flags().StringVar(&f.SenderID, "sender", "", "UUID of a sender")
	usage.Flags().StringVar(&f.KeyID, "key", "", "ID of a key")
	usage.Flags().StringVar(&since, "since", "7d", "how far back")
	return usage
}

func (a *app) audit() *cobra.Command {
	var f sqlkeys.AuditFilter
	audit := &cobra.Command{
		Use:   "audit",
		Short: "Show who changed what, and when",
		Args:  cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			return printAll(a, s.Audit(ctx, f), auditJSON, "AT\tACTOR\tACTION\tSENDER\tKEY\tDETAIL", func(e sqlkeys.AuditEntry) string {
				return strings.Join([]string{when(e.At), e.Actor, e.Action, e.SenderID, e.KeyID, pairsText(e.Detail)}, "\t")
			})
		}),
	}
	audit.Flags().StringVar(&f.SenderID, "sender", "", "UUID of a sender")
	audit.Flags().StringVar(&f.KeyID, "key", "", "ID of a key")
	return audit
}

// confirm asks on standard error, and takes y or yes from standard input.
func (a *app) confirm(question string) error {
	if a.yes {
		return nil
	}
	fmt.Fprint(a.err, question+" [y/N] ")
	answer, _ := bufio.NewReader(a.in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("not confirmed: nothing was changed")
}

func parseLimits(texts []string) (map[string]senderauth.Limit, error) {
	pairs, err := parsePairs("limit", texts)
	if err != nil {
		return nil, err
	}
	limits := make(map[string]senderauth.Limit, len(pairs))
	var errs []error
	for name, text := range pairs {
		limits[name], err = sqlkeys.ParseLimit(text)
		errs = append(errs, err)
	}
	return limits, errors.Join(errs...)
}

func parsePairs(flag string, texts []string) (map[string]string, error) {
	pairs := make(map[string]string, len(texts))
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if _, twice := pairs[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("-%s %q: %w: want NAME=VALUE, each name once", flag, text, sqlkeys.ErrInvalid)
		}
		pairs[name] = value
	}
	return pairs, nil
}

// parseSpan reads a duration, in which d is 24 hours.
func parseSpan(flag, text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= -36500 && n <= 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	span, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("-%s %q: %w: want a duration such as 90d or 12h", flag, text, sqlkeys.ErrInvalid)
	}
	return span, nil
}

// parseInstant reads a duration from now, or a time; "" is the zero time.
func parseInstant(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	span, err := parseSpan(flag, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w, or an RFC 3339 time", err)
	}
	return time.Now().Add(span), nil
}
