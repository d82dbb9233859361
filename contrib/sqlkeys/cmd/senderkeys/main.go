// Command senderkeys manages senders and their API keys in PostgreSQL or
// SQLite.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	_ "time/tzdata" // the zones of allowances, on machines that have none

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process
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

Name the database with -db or SENDERAUTH_DB: a PostgreSQL URL or the path of a
SQLite file. If the service uses peppers, set SENDERAUTH_PEPPERS to the same
ones: base64, separated by commas, the current one first. Write flags with one
dash or two.

Exit codes:
  0  success
  1  failure
  2  wrong usage or input
  3  no such sender or key
  4  the sender, the key or the file of -out exists already, or the sender or
     key is revoked, expired, rotated or disabled`

// An app is one run of the command.
type app struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string

	db, prefix, outPath string
	json, yes, force    bool
	started             bool // the arguments were valid
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.command()
	root.SetArgs(twoDashes(args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(a.err, "senderkeys: "+forPeople.Replace(err.Error()))
	return a.exitCode(err)
}

// forPeople names the inputs of the command in an error of the package.
var forPeople = strings.NewReplacer(
	"sqlkeys: Config.Prefix", "-prefix",
	"sqlkeys: KeyFilter.State", "-state",
	"sqlkeys: SenderFilter.State", "-state",
	"sqlkeys: Config.Peppers", "SENDERAUTH_PEPPERS",
	"sqlkeys: ", "",
)

func (a *app) exitCode(err error) int {
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

// twoDashes doubles the dash of long flags, for cobra. No short flags exist
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
