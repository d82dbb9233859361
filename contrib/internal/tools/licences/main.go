// Command licences prints the licence of every module that the modules of the repository
// require, directly or not, for the tests and tools too. It fails if one of the licences is
// unknown or does not go with this repository's MIT licence.
//
//	go run ./licences [REPOSITORY]
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/licensecheck"
	"github.com/senderauth/senderauth/contrib/internal/tools/modules"
	"golang.org/x/mod/module"
)

// allowed has the SPDX names of licences under which a program with MIT parts can be
// shipped. MPL-2.0 covers only the files that are under it.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}

// chosen has the modules whose licence we choose of several, in words that licensecheck
// does not know.
var chosen = map[string]string{
	"github.com/golang/freetype": "FTL", // or GPL-2.0; FTL asks for credit only
}

func main() {
	repo := "."
	if len(os.Args) > 1 {
		repo = os.Args[1]
	}
	if err := run(repo); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(repo string) error {
	required, err := dependencies(repo)
	if err != nil {
		return err
	}
	fmt.Print("| module | version | licence |\n| --- | --- | --- |\n")
	var mistakes []error
	for _, v := range required {
		licence, err := licenceOf(v)
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", v, err))
			continue
		}
		fmt.Printf("| %s | %s | %s |\n", v.Path, v.Version, licence)
	}
	return errors.Join(mistakes...)
}

// dependencies returns what the repository's modules require of others.
func dependencies(repo string) ([]module.Version, error) {
	all, err := modules.In(repo)
	if err != nil {
		return nil, err
	}
	found := map[module.Version]bool{}
	for _, m := range all {
		for _, r := range m.File.Require {
			if r.Mod.Path != all[0].Path() && !strings.HasPrefix(r.Mod.Path, all[0].Path()+"/") {
				found[r.Mod] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b module.Version) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version, b.Version))
	}), nil
}

// licenceOf returns the SPDX names of the licences of a module.
func licenceOf(v module.Version) (string, error) {
	if name := chosen[v.Path]; name != "" {
		return name, nil
	}
	cmd := exec.Command("go", "mod", "download", "-json", v.String())
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go mod download: %w", err)
	}
	var downloaded struct{ Dir string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return "", err
	}
	var names []string
	for _, pattern := range []string{"LICEN[CS]E*", "COPYING*"} {
		files, err := filepath.Glob(filepath.Join(downloaded.Dir, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			for _, match := range licensecheck.Scan(text).Match {
				names = append(names, match.ID)
			}
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return "", errors.New("no licence found")
	}
	for _, name := range names {
		if !slices.Contains(allowed, name) {
			return "", fmt.Errorf("licence %s is not one of %s", name, strings.Join(allowed, ", "))
		}
	}
	return strings.Join(names, ", "), nil
}
