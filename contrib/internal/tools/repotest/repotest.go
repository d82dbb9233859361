// Package repotest makes small repositories that the tests release.
package repotest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Repo is a git repository with two modules: the root, and contrib/lib, which requires
// the root and has a command.
type Repo struct {
	t   *testing.T
	Dir string
}

func New(t *testing.T) *Repo {
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "")
	goLine := strings.TrimPrefix(runtime.Version(), "go")
	r := &Repo{t, t.TempDir()}
	for name, text := range map[string]string{
		"go.mod":          "module example.com/root\n\ngo " + goLine + "\n",
		"root.go":         "package root\n\nfunc Name() string { return \"root\" }\n",
		"LICENSE":         "licence\n",
		"CHANGELOG.md":    "# Changelog\n\n## v0.1.0 - 2026-01-31\n\n- First.\n",
		".ci/run":         "exit 0\n",
		"contrib/go.work": "go " + goLine + "\n\nuse (\n\t..\n\t./lib\n)\n",
		"contrib/lib/go.mod": "module example.com/root/contrib/lib\n\ngo " + goLine +
			"\n\nrequire example.com/root v0.0.0\n\nreplace example.com/root => ../..\n",
		"contrib/lib/lib.go":         "package lib\n\nimport \"example.com/root\"\n\nfunc Name() string { return root.Name() }\n",
		"contrib/lib/LICENSE":        "licence\n",
		"contrib/lib/cmd/hi/main.go": hi,
	} {
		r.Write(name, text)
	}
	r.Git("init", "-q", "-b", "main")
	r.Git("config", "user.name", "Test")
	r.Git("config", "user.email", "test@example.com")
	r.Commit()
	return r
}

const hi = `package main

import (
	"fmt"
	"runtime/debug"

	"example.com/root/contrib/lib"
)

func main() {
	info, _ := debug.ReadBuildInfo()
	fmt.Println(lib.Name(), info.Main.Version)
}
`

// Write writes a file, and its folder.
func (r *Repo) Write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.Dir, name)
	require.NoError(r.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(r.t, os.WriteFile(path, []byte(text), 0o644))
}

func (r *Repo) Remove(name string) {
	r.t.Helper()
	require.NoError(r.t, os.Remove(filepath.Join(r.Dir, name)))
}

// Commit commits all files.
func (r *Repo) Commit() {
	r.t.Helper()
	r.Git("add", "-A")
	r.Git("commit", "-q", "-m", "change")
}

// Git runs git in the repository and returns what it printed.
func (r *Repo) Git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.Dir
	out, err := cmd.CombinedOutput()
	require.NoError(r.t, err, "git %v: %s", args, out)
	return strings.TrimSpace(string(out))
}
