package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"
)

// check returns everything that forbids the release.
func (r *release) check(ctx context.Context) error {
	if err := checkVersion(r.version); err != nil {
		return err
	}
	return errors.Join(r.checkTree(ctx), r.checkTags(ctx), r.checkChangelog(), r.checkModules())
}

func checkVersion(version string) error {
	switch {
	case !semver.IsValid(version), semver.Canonical(version) != version:
		return fmt.Errorf("version %q is not of the form v1.2.3 or v1.2.3-rc.1", version)
	case semver.Major(version) != "v0" && semver.Major(version) != "v1":
		return fmt.Errorf("version %s needs module paths that end in /%s", version, semver.Major(version))
	}
	return nil
}

// checkTree refuses uncommitted changes: they would not be in the release.
func (r *release) checkTree(ctx context.Context) error {
	changes, err := command(ctx, r.repo, nil, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if first, rest, _ := strings.Cut(changes, "\n"); first != "" {
		return fmt.Errorf("the work tree has uncommitted changes: %s (and %d more)", strings.TrimSpace(first), len(strings.Split(rest, "\n"))-1)
	}
	return nil
}

func (r *release) checkTags(ctx context.Context) error {
	list, err := command(ctx, r.repo, nil, "git", "tag", "--list")
	if err != nil {
		return err
	}
	tags := strings.Fields(list)
	for _, m := range r.modules {
		if m.Published() && slices.Contains(tags, m.Tag(r.version)) {
			return fmt.Errorf("tag %s exists: a version that was published cannot be replaced", m.Tag(r.version))
		}
	}
	return nil
}

var heading = regexp.MustCompile(`(?m)^## (.*)$`)

// checkChangelog refuses a release that is not the newest entry of the change log. A
// pre-release needs no entry.
func (r *release) checkChangelog() error {
	if semver.Prerelease(r.version) != "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(r.repo, "CHANGELOG.md"))
	if err != nil {
		return err
	}
	newest := heading.FindSubmatch(text)
	if newest == nil {
		return fmt.Errorf("CHANGELOG.md has no entry, want %q", "## "+r.version+" - YYYY-MM-DD")
	}
	version, date, _ := strings.Cut(string(newest[1]), " - ")
	if _, err := time.Parse(time.DateOnly, date); version != r.version || err != nil {
		return fmt.Errorf("the newest entry of CHANGELOG.md is %q, want %q", newest[0], "## "+r.version+" - YYYY-MM-DD")
	}
	return nil
}

func (r *release) checkModules() error {
	var mistakes []error
	for _, m := range r.modules {
		if !m.Published() {
			continue
		}
		if _, err := os.Stat(filepath.Join(r.repo, m.Dir, "LICENSE")); err != nil {
			mistakes = append(mistakes, fmt.Errorf("module %s has no LICENSE: copy the root's", m.Path()))
		}
		for _, required := range m.Requires(r.modules) {
			if !required.Published() {
				mistakes = append(mistakes, fmt.Errorf("module %s requires %s, which is not published", m.Path(), required.Path()))
			}
		}
	}
	return errors.Join(mistakes...)
}
