package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/internal/tools/repotest"
)

func TestIncompatibleChangeNeedsAnAnnouncement(t *testing.T) {
	const unannounced = "example.com/root is incompatible with v0.1.0, and CHANGELOG.md has no line \"- Incompatible in root:\":\n- Name: changed from func() string to func(int) string\n"
	r := repotest.New(t)
	require.NoError(t, run(r.Dir), "there is nothing to compare with")
	r.Git("tag", "v0.1.0")
	require.NoError(t, run(r.Dir), "nothing has changed")

	r.Write("root.go", "package root\n\nfunc Name() string { return \"root\" }\n\nfunc New() {}\n")
	require.NoError(t, run(r.Dir), "an addition is compatible")

	r.Write("root.go", "package root\n\nfunc Name(int) string { return \"root\" }\n")
	r.Write("contrib/lib/lib.go", "package lib\n\nimport \"example.com/root\"\n\nfunc Name() string { return root.Name(1) }\n")
	require.EqualError(t, run(r.Dir), unannounced)

	r.Write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n- Incompatible in root: Name takes a number.\n\n## v0.1.0 - 2026-01-31\n")
	require.NoError(t, run(r.Dir))

	r.Write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n## v0.1.0 - 2026-01-31\n\n- Incompatible in root: Of an older release.\n")
	require.EqualError(t, run(r.Dir), unannounced)
}

func TestLastReleaseIsTheHighestVersion(t *testing.T) {
	r := repotest.New(t)
	for _, tag := range []string{"v0.9.0", "v0.10.0", "v0.11.0-rc.1", "contrib/lib/v0.12.0", "vnext"} {
		r.Git("tag", tag)
	}
	last, err := lastRelease(r.Dir)
	require.NoError(t, err)
	require.Equal(t, "v0.10.0", last)
}
