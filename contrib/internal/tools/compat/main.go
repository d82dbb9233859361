// Command compat compares the exported API of each published module with that of the last
// release. An incompatible change must be announced: the newest section of CHANGELOG.md
// needs a line that starts with "- Incompatible in NAME:", with the last element of the
// module's path as NAME.
//
//	go run ./compat [REPOSITORY]
package main

import (
	"bytes"
	"errors"
	"fmt"
	"go/types"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/senderauth/senderauth/contrib/internal/tools/modules"
	"golang.org/x/exp/apidiff"
	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"
)

func main() {
	repo := "."
	if len(os.Args) > 1 {
		repo = os.Args[1]
	}
	if err := run(repo); err != nil {
		fmt.Fprintln(os.Stderr, "compat:", err)
		os.Exit(1)
	}
}

func run(repo string) error {
	last, err := lastRelease(repo)
	if err != nil {
		return err
	}
	if last == "" {
		fmt.Println("no release to compare with")
		return nil
	}
	temp, err := os.MkdirTemp("", "senderauth-compat-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	old := filepath.Join(temp, "old")
	if out, err := exec.Command("git", "clone", "-q", "--branch", last, repo, old).CombinedOutput(); err != nil {
		return fmt.Errorf("git clone: %w: %s", err, out)
	}
	changelog, err := os.ReadFile(filepath.Join(repo, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	all, err := modules.In(repo)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Published() && !m.Internal() {
			err = errors.Join(err, compare(m, last, old, repo, string(changelog)))
		}
	}
	return err
}

// lastRelease returns the highest version that has a tag, or "". Tags of a release are on a
// commit beside the branch, so that git describe does not find them.
func lastRelease(repo string) (string, error) {
	out, err := exec.Command("git", "-C", repo, "tag", "--list", "v*").Output()
	if err != nil {
		return "", fmt.Errorf("git tag: %w", err)
	}
	tags := slices.DeleteFunc(strings.Fields(string(out)), func(tag string) bool {
		return !semver.IsValid(tag) || semver.Prerelease(tag) != ""
	})
	if len(tags) == 0 {
		return "", nil
	}
	return slices.MaxFunc(tags, semver.Compare), nil
}

// compare returns an error if a module has incompatible changes that are not announced.
func compare(m *modules.Module, last, old, repo, changelog string) error {
	if _, err := os.Stat(filepath.Join(old, m.Dir, "go.mod")); err != nil {
		fmt.Printf("%s: not in %s\n", m.Path(), last)
		return nil
	}
	before, err := load(m.Path(), old, m.Dir)
	if err != nil {
		return err
	}
	after, err := load(m.Path(), repo, m.Dir)
	if err != nil {
		return err
	}
	var changes bytes.Buffer
	if err := apidiff.ModuleChanges(before, after).TextIncompatible(&changes, false); err != nil {
		return err
	}
	announcement := "- Incompatible in " + path.Base(m.Path()) + ":"
	switch announced := announces(changelog, last, announcement); {
	case changes.Len() == 0:
		fmt.Printf("%s: compatible with %s\n", m.Path(), last)
	case announced:
		fmt.Printf("%s: announced as incompatible with %s\n", m.Path(), last)
	default:
		return fmt.Errorf("%s is incompatible with %s, and CHANGELOG.md has no line %q:\n%s", m.Path(), last, announcement, &changes)
	}
	return nil
}

// announces reports whether a line of the change log above the last release starts with
// the announcement.
func announces(changelog, last, announcement string) bool {
	sinceLast, _, _ := strings.Cut(changelog, "\n## "+last+" ")
	return strings.Contains(sinceLast, "\n"+announcement)
}

// load type-checks the packages of a module that others can import. It takes the
// repository's other modules from the work space, because those of an old release may not
// be published yet.
func load(module, repo, dir string) (*apidiff.Module, error) {
	repo, err := filepath.Abs(repo)
	if err != nil {
		return nil, err
	}
	found, err := packages.Load(&packages.Config{
		Mode: packages.NeedName | packages.NeedTypes | packages.NeedImports | packages.NeedDeps,
		Dir:  filepath.Join(repo, dir),
		Env:  append(os.Environ(), "GOWORK="+filepath.Join(repo, "contrib", "go.work")),
	}, "./...")
	if err != nil {
		return nil, err
	}
	var api []*types.Package
	for _, p := range found {
		for _, e := range p.Errors {
			err = errors.Join(err, e)
		}
		if p.Name != "main" && !strings.Contains(p.PkgPath, "/internal/") {
			api = append(api, p.Types)
		}
	}
	return &apidiff.Module{Path: module, Packages: api}, err
}
