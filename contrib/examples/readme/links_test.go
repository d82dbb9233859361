package readme_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "../../.."

// filesOf reads all files of the repository with one of these extensions, by their path
// from the root.
func filesOf(t *testing.T, extension string) map[string]string {
	t.Helper()
	files := map[string]string{}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(path) != extension:
			return nil
		}
		b, err := os.ReadFile(path)
		relative, _ := filepath.Rel(root, path)
		files[relative] = string(b)
		return err
	}))
	return files
}

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```|^    .*?$")
	codeSpan  = regexp.MustCompile("`[^`]*`")
	link      = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	notInSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	testName  = regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example)\w*$`)
	testWord  = regexp.MustCompile(`\b(Test|Fuzz|Benchmark|Example)[A-Z]\w*`)
)

// sections returns the anchors that GitHub gives to the headings of a page.
func sections(page string) map[string]bool {
	anchors := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(page, ""), -1) {
		text := link.ReplaceAllString(strings.ToLower(m[1]), "$1")
		anchors[strings.ReplaceAll(notInSlug.ReplaceAllString(text, ""), " ", "-")] = true
	}
	return anchors
}

// Each link of a Markdown file leads to a file, a folder or a section of the repository.
// If its text is the name of a test, the file has that test.
func TestLinksLeadSomewhere(t *testing.T) {
	pages := filesOf(t, ".md")
	followed := 0
	for from, page := range pages {
		prose := codeSpan.ReplaceAllString(codeBlock.ReplaceAllString(page, ""), "code")
		for _, m := range link.FindAllStringSubmatch(prose, -1) {
			text, target := m[1], m[2]
			if strings.Contains(target, "://") {
				continue
			}
			followed++
			path, section, hasSection := strings.Cut(target, "#")
			to := from
			if path != "" {
				to = filepath.Join(filepath.Dir(from), path)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s: [%s](%s): %v", from, text, target, err)
				continue
			}
			if hasSection && !sections(pages[to])[section] {
				t.Errorf("%s: [%s](%s): no such section", from, text, target)
			}
			if testName.MatchString(text) && strings.HasSuffix(to, "_test.go") {
				source, err := os.ReadFile(filepath.Join(root, to))
				require.NoError(t, err)
				if !strings.Contains(string(source), "\nfunc "+text+"(") {
					t.Errorf("%s: [%s](%s): the file has no such test", from, text, target)
				}
			}
		}
	}
	require.Greater(t, followed, 100)
}

// A Markdown file names no test that is gone, in a command or a sentence either.
func TestNamedTestsExist(t *testing.T) {
	var source strings.Builder
	for _, file := range filesOf(t, ".go") {
		source.WriteString(file)
	}
	for path, page := range filesOf(t, ".md") {
		for _, name := range testWord.FindAllString(page, -1) {
			if !strings.Contains(source.String(), "\nfunc "+name+"(") {
				t.Errorf("%s names %s, which no file has", path, name)
			}
		}
	}
}

// Each row of the tables of a page has a link to a test in this column, or says no.
func TestClaimsLinkToTheirTests(t *testing.T) {
	for path, column := range map[string]string{"docs/threats.md": "tests", "docs/compare.md": "senderauth"} {
		page, err := os.ReadFile(filepath.Join(root, path))
		require.NoError(t, err)
		at, rows := -1, 0
		for line := range strings.Lines(string(page)) {
			cells := strings.Split(strings.TrimSpace(line), " | ")
			switch {
			case !strings.HasPrefix(line, "|"):
				at = -1
			case slices.Contains(cells, column):
				at = slices.Index(cells, column)
			case at >= 0 && !strings.HasPrefix(line, "| ---"):
				rows++
				require.Greater(t, len(cells), at, line)
				if !strings.Contains(cells[at], "_test.go)") && cells[at] != "no" {
					t.Errorf("%s: no test in: %s", path, line)
				}
			}
		}
		require.Greater(t, rows, 10, path)
	}
}
