package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/tools/repotest"
)

func TestReleaseTagsAllModulesOnOneCommit(t *testing.T) {
	r := repotest.New(t)
	main := r.Git("rev-parse", "HEAD")
	var log bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "v0.1.0"}, &log))

	require.Equal(t, "contrib/lib/v0.1.0\nv0.1.0", r.Git("tag", "--list"))
	released := r.Git("rev-parse", "v0.1.0^{commit}")
	require.Equal(t, released, r.Git("rev-parse", "contrib/lib/v0.1.0^{commit}"))
	require.Equal(t, main, r.Git("rev-parse", released+"^"), "the release is beside the branch")
	require.Equal(t, main, r.Git("rev-parse", "HEAD"))
	require.Empty(t, r.Git("status", "--porcelain"))

	goMod := r.Git("show", released+":contrib/lib/go.mod")
	require.Contains(t, goMod, "require example.com/root v0.1.0")
	require.NotContains(t, goMod, "replace")
	require.Contains(t, r.Git("show", released+":contrib/lib/go.sum"), "example.com/root v0.1.0 h1:")
	require.Contains(t, log.String(), "git push --atomic origin v0.1.0 contrib/lib/v0.1.0\n")
}

func TestProxyOnlyWritesEveryModuleAndTagsNothing(t *testing.T) {
	r := repotest.New(t)
	r.Write(".ci/run", "exit 1 # the gate is what calls this\n")
	r.Commit()
	proxy := t.TempDir()
	var log bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "-proxy", proxy, "v0.1.0"}, &log))
	require.Empty(t, r.Git("tag", "--list"))
	for _, module := range []string{"example.com/root", "example.com/root/contrib/lib"} {
		for _, file := range []string{"list", "v0.1.0.info", "v0.1.0.mod", "v0.1.0.zip"} {
			require.FileExists(t, filepath.Join(proxy, module, "@v", file))
		}
		require.Contains(t, log.String(), "ok: "+module+"@v0.1.0 with go")
	}
}

func TestDryRunTagsNothing(t *testing.T) {
	r := repotest.New(t)
	var log bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "-n", "v0.1.0"}, &log))
	require.Empty(t, r.Git("tag", "--list"))
	require.Contains(t, log.String(), "would tag: v0.1.0 contrib/lib/v0.1.0\n")
}

func TestPreReleaseNeedsNoEntryInTheChangelog(t *testing.T) {
	r := repotest.New(t)
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "v0.2.0-rc.1"}, &bytes.Buffer{}))
	require.Equal(t, "contrib/lib/v0.2.0-rc.1\nv0.2.0-rc.1", r.Git("tag", "--list"))
}

func TestMistakeTagsNothing(t *testing.T) {
	const lib = "module example.com/root/contrib/lib\n\ngo 1.25.0\n\nrequire example.com/root v0.0.0\n\nreplace example.com/root => ../..\n"
	for name, test := range map[string]struct {
		version string // default v0.1.0
		change  func(r *repotest.Repo)
		want    string
	}{
		"a dirty tree": {
			change: func(r *repotest.Repo) { r.Write("new.go", "package root\n") },
			want:   "the work tree has uncommitted changes: ?? new.go (and 0 more)",
		},
		"no v":              {version: "0.1.0", want: `version "0.1.0" is not of the form v1.2.3 or v1.2.3-rc.1`},
		"a short version":   {version: "v1", want: `version "v1" is not of the form v1.2.3 or v1.2.3-rc.1`},
		"build metadata":    {version: "v1.0.0+a", want: `version "v1.0.0+a" is not of the form v1.2.3 or v1.2.3-rc.1`},
		"a flag's value":    {version: "latest", want: `version "latest" is not of the form v1.2.3 or v1.2.3-rc.1`},
		"a new major":       {version: "v2.0.0", want: "version v2.0.0 needs module paths that end in /v2"},
		"the root's tag":    {change: func(r *repotest.Repo) { r.Git("tag", "v0.1.0") }, want: "tag v0.1.0 exists: a version that was published cannot be replaced"},
		"a module's tag":    {change: func(r *repotest.Repo) { r.Git("tag", "contrib/lib/v0.1.0") }, want: "tag contrib/lib/v0.1.0 exists: a version that was published cannot be replaced"},
		"another version":   {version: "v0.1.1", want: `the newest entry of CHANGELOG.md is "## v0.1.0 - 2026-01-31", want "## v0.1.1 - YYYY-MM-DD"`},
		"entries above":     {change: changelog("# Changelog\n\n## Unreleased\n\n- New.\n\n## v0.1.0 - 2026-01-31\n"), want: `the newest entry of CHANGELOG.md is "## Unreleased", want "## v0.1.0 - YYYY-MM-DD"`},
		"no date":           {change: changelog("# Changelog\n\n## v0.1.0\n"), want: `the newest entry of CHANGELOG.md is "## v0.1.0", want "## v0.1.0 - YYYY-MM-DD"`},
		"an empty log":      {change: changelog("# Changelog\n"), want: `CHANGELOG.md has no entry, want "## v0.1.0 - YYYY-MM-DD"`},
		"a missing licence": {change: func(r *repotest.Repo) { r.Remove("contrib/lib/LICENSE"); r.Commit() }, want: "module example.com/root/contrib/lib has no LICENSE: copy the root's"},
		"a private requirement": {
			change: func(r *repotest.Repo) {
				r.Write("contrib/faults/go.mod", "module example.com/root/contrib/faults\n\ngo 1.25.0\n")
				r.Write("contrib/lib/go.mod", lib+"\nrequire example.com/root/contrib/faults v0.0.0\n")
				r.Commit()
			},
			want: "module example.com/root/contrib/lib requires example.com/root/contrib/faults, which is not published",
		},
		"a replacement of another's module": {
			change: func(r *repotest.Repo) {
				r.Write("contrib/lib/go.mod", lib+"\nreplace example.com/other => ../other\n")
				r.Commit()
			},
			want: "module example.com/root/contrib/lib replaces example.com/other: a release cannot have replacements",
		},
		"a gate that fails": {
			change: func(r *repotest.Repo) { r.Write(".ci/run", "exit 3\n"); r.Commit() },
			want:   "the gate failed: exit status 3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := repotest.New(t)
			if test.change != nil {
				test.change(r)
			}
			if test.version == "" {
				test.version = "v0.1.0"
			}
			before := r.Git("tag", "--list")
			require.EqualError(t, run(t.Context(), []string{"-C", r.Dir, test.version}, &bytes.Buffer{}), test.want)
			require.Equal(t, before, r.Git("tag", "--list"))
		})
	}
}

func changelog(text string) func(*repotest.Repo) {
	return func(r *repotest.Repo) { r.Write("CHANGELOG.md", text); r.Commit() }
}

// "go mod tidy" reads the tests of dependencies, so that a module replaces what these
// require. The module itself does not require it.
func TestReplacementForTheTestsOfADependencyIsDropped(t *testing.T) {
	r := repotest.New(t)
	r.Write("contrib/desk/go.mod", "module example.com/root/contrib/desk\n\ngo 1.25.0\n\nreplace example.com/root => ../..\n")
	r.Write("contrib/desk/desk.go", "package desk\n")
	r.Write("contrib/desk/LICENSE", "MIT\n")
	r.Commit()
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "-n", "v0.1.0"}, &bytes.Buffer{}))
}

// A package that only the work space can resolve is found before a tag exists.
func TestForgottenRequireIsFound(t *testing.T) {
	r := repotest.New(t)
	r.Write("contrib/lib/go.mod", "module example.com/root/contrib/lib\n\ngo 1.25.0\n")
	r.Commit()
	err := run(t.Context(), []string{"-C", r.Dir, "-n", "v0.1.0"}, &bytes.Buffer{})
	require.EqualError(t, err, "module example.com/root/contrib/lib: go mod tidy changes go.mod")
}

func TestCommandThatDoesNotSayItsVersionIsFound(t *testing.T) {
	r := repotest.New(t)
	r.Write("contrib/lib/cmd/hi/main.go", "package main\n\nfunc main() { println(\"hi\") }\n")
	r.Commit()
	err := run(t.Context(), []string{"-C", r.Dir, "-n", "v0.1.0"}, &bytes.Buffer{})
	require.ErrorContains(t, err, `hi --version says "", want v0.1.0`)
}

func TestRunWantsOneVersion(t *testing.T) {
	require.EqualError(t, run(t.Context(), nil, &bytes.Buffer{}), "want one VERSION, not 0 arguments")
	require.EqualError(t, run(t.Context(), []string{"v0.1.0", "v0.2.0"}, &bytes.Buffer{}), "want one VERSION, not 2 arguments")
}

func TestTempFoldersAreRemoved(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	r := repotest.New(t)
	require.NoError(t, run(t.Context(), []string{"-C", r.Dir, "-n", "v0.1.0"}, &bytes.Buffer{}))
	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	for _, entry := range left {
		assert.False(t, strings.HasPrefix(entry.Name(), "senderauth-release-"), entry.Name())
	}
}
