// Command release releases all published modules of the repository in one version. It
// proves a release from the outside before a tag exists. RELEASING.md says when to run it.
//
//	.ci/release [-n] [-proxy DIR] VERSION
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/senderauth/senderauth/contrib/internal/tools/modules"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "release:", strings.ReplaceAll(err.Error(), "\n", "\nrelease: "))
		}
		os.Exit(1)
	}
}

// A release is what one run makes.
type release struct {
	repo      string // the root of the repository
	version   string
	proxy     string            // the folder of the module proxy
	proxyOnly bool              // neither the gate nor tags
	dryRun    bool              // neither the gate nor tags, but what they would be
	modules   []*modules.Module // in the order of their dependencies
	temp      string
	log       io.Writer
}

func run(ctx context.Context, args []string, log io.Writer) (err error) {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "usage: .ci/release [-n] [-proxy DIR] VERSION\n\nVERSION is a semantic version, such as v0.1.0.\n\n")
		flags.PrintDefaults()
	}
	r := &release{log: log}
	flags.StringVar(&r.repo, "C", ".", "release the repository in `DIR`")
	flags.StringVar(&r.proxy, "proxy", "", "only write the release as a file-system module proxy into `DIR`, and prove it")
	flags.BoolVar(&r.dryRun, "n", false, "prove the release and print what would be tagged, but run no gate and tag nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("want one VERSION, not %d arguments", flags.NArg())
	}
	r.version, r.proxyOnly = flags.Arg(0), r.proxy != ""
	if r.modules, err = modules.In(r.repo); err != nil {
		return err
	}
	if err := r.check(ctx); err != nil {
		return err
	}
	if r.temp, err = os.MkdirTemp("", "senderauth-release-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.temp)) }()
	return r.make(ctx)
}

// make makes the release in a clone. The repository is not touched until everything has
// been proved.
func (r *release) make(ctx context.Context) error {
	if r.proxy == "" {
		r.proxy = filepath.Join(r.temp, "proxy")
	}
	var err error
	if r.proxy, err = filepath.Abs(r.proxy); err != nil {
		return err
	}
	clone := filepath.Join(r.temp, "clone")
	if _, err := command(ctx, r.repo, nil, "git", "clone", "-q", "--no-tags", ".", clone); err != nil {
		return err
	}
	if !r.proxyOnly && !r.dryRun {
		r.say("running the gate on a clean checkout")
		gate := exec.CommandContext(ctx, "bash", ".ci/run")
		gate.Dir, gate.Stdout, gate.Stderr = clone, r.log, os.Stderr
		if err := gate.Run(); err != nil {
			return fmt.Errorf("the gate failed: %w", err)
		}
	}
	if err := r.write(ctx, clone); err != nil {
		return err
	}
	if err := r.prove(ctx, clone); err != nil {
		return err
	}
	if r.proxyOnly {
		r.say("%s is in %s", r.version, r.proxy)
		return nil
	}
	return r.tag(ctx, clone)
}

func (r *release) say(format string, args ...any) { fmt.Fprintf(r.log, format+"\n", args...) }

// command runs a program and returns what it printed. Its error has the last lines of
// standard error.
func command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, strings.Join(lines[max(0, len(lines)-5):], "; "))
	}
	return strings.TrimSpace(stdout.String()), nil
}
