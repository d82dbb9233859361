package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every number is shown by a scenario, a test or a program.
func TestEveryFaultIsShown(t *testing.T) {
	var want, shown []int
	for _, r := range ranges {
		for n := r[0]; n <= r[1]; n++ {
			want = append(want, n)
		}
	}
	for _, e := range entries() {
		shown = append(shown, e.number)
	}
	require.Equal(t, want, shown)
}

// The tests and programs of the list exist.
func TestListedTestsExist(t *testing.T) {
	for _, e := range tested {
		require.NotEmpty(t, e.tests, "F-%d", e.number)
		for _, name := range e.tests {
			folder, test, ok := strings.Cut(name, " ")
			if !ok {
				require.FileExists(t, filepath.Join("../..", folder, "main.go"), "F-%d", e.number)
				continue
			}
			require.Contains(t, testsIn(t, filepath.Join("../..", folder)), test, "F-%d: %s", e.number, folder)
		}
	}
}

// testsIn returns the names of the tests in a folder.
func testsIn(t *testing.T, folder string) (names []string) {
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	require.NoError(t, err)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && (strings.HasPrefix(f.Name.Name, "Test") || strings.HasPrefix(f.Name.Name, "Fuzz")) {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

func TestReadmeHasTheList(t *testing.T) {
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	require.True(t, strings.Contains(string(text), "\n"+list()), "README.md lacks this list:\n%s", list())
}
