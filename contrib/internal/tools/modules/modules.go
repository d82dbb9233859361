// Package modules knows the modules of the repository, and which of them are published.
package modules

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// unpublished has the modules that get no tag, because nothing outside the repository can
// use them.
var unpublished = []string{
	"contrib/benchmarks",
	"contrib/conformance",
	"contrib/examples",
	"contrib/faults",
	"contrib/internal/tools",
	"contrib/otelsender/alerts",
	"contrib/redislimit/benchmarks",
}

// A Module is one module of the repository.
type Module struct {
	Dir  string // relative to the root, with slashes; "." for the root
	File *modfile.File
}

func (m *Module) Path() string { return m.File.Module.Mod.Path }

// Published reports whether releases have a tag for the module.
func (m *Module) Published() bool { return !slices.Contains(unpublished, m.Dir) }

// Internal reports whether only other modules of the repository can import the module.
// Such a module is published if the tests of a published one need it, for "go mod tidy"
// in a user's module looks at those tests too.
func (m *Module) Internal() bool { return slices.Contains(strings.Split(m.Dir, "/"), "internal") }

// Tag returns the name of the tag of a version.
func (m *Module) Tag(version string) string { return path.Join(m.Dir, version) }

// In returns the modules in the index of a repository. Each follows the modules of the
// repository that it requires.
func In(repo string) ([]*Module, error) {
	cmd := exec.Command("git", "ls-files", "*go.mod")
	cmd.Dir = repo
	files, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s is not a git repository: %w", repo, err)
	}
	var all []*Module
	for _, name := range strings.Fields(string(files)) {
		data, err := os.ReadFile(filepath.Join(repo, name))
		if err != nil {
			return nil, err
		}
		file, err := modfile.Parse(name, data, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, &Module{Dir: path.Dir(name), File: file})
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no go.mod", repo)
	}
	return inOrder(all), nil
}

// inOrder sorts modules so that each follows those of the others that it requires.
func inOrder(all []*Module) []*Module {
	slices.SortFunc(all, func(a, b *Module) int { return cmp.Compare(a.Dir, b.Dir) })
	var ordered []*Module
	var visit func(m *Module)
	visit = func(m *Module) {
		if slices.Contains(ordered, m) {
			return
		}
		for _, required := range m.Requires(all) {
			visit(required)
		}
		ordered = append(ordered, m)
	}
	for _, m := range all {
		visit(m)
	}
	return ordered
}

// Requires returns the modules of all that m requires.
func (m *Module) Requires(all []*Module) []*Module {
	var found []*Module
	for _, r := range m.File.Require {
		if i := slices.IndexFunc(all, func(other *Module) bool { return other.Path() == r.Mod.Path }); i >= 0 {
			found = append(found, all[i])
		}
	}
	return found
}
