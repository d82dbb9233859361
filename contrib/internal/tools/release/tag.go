package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// tag commits what write has changed in the clone, brings the commit into the repository
// and tags it. No branch gets the commit.
func (r *release) tag(ctx context.Context, clone string) error {
	var tags []string
	for _, m := range r.modules {
		if m.Published() {
			tags = append(tags, m.Tag(r.version))
		}
	}
	if _, err := command(ctx, clone, nil, "git", "add", "-A"); err != nil {
		return err
	}
	if r.dryRun {
		changes, err := command(ctx, clone, nil, "git", "diff", "--cached", "--stat")
		if err != nil {
			return err
		}
		r.say("would commit on a detached HEAD:\n %s\nwould tag: %s\nthen: %s", changes, strings.Join(tags, " "), push(tags))
		return nil
	}
	for _, key := range []string{"user.name", "user.email"} {
		value, err := command(ctx, r.repo, nil, "git", "config", key)
		if err != nil {
			return fmt.Errorf("git has no %s to commit with: %w", key, err)
		}
		if _, err := command(ctx, clone, nil, "git", "config", key, value); err != nil {
			return err
		}
	}
	if _, err := command(ctx, clone, nil, "git", "commit", "-q", "-m", "Release "+r.version); err != nil {
		return err
	}
	if _, err := command(ctx, r.repo, nil, "git", "fetch", "-q", "--no-tags", clone, "HEAD"); err != nil {
		return err
	}
	commit, err := command(ctx, clone, nil, "git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	for i, name := range tags {
		if _, err := command(ctx, r.repo, nil, "git", "tag", "-a", "-m", "senderauth "+r.version, name, commit); err != nil {
			_, undo := command(context.WithoutCancel(ctx), r.repo, nil, "git", append([]string{"tag", "-d"}, tags[:i]...)...)
			if i == 0 {
				undo = nil
			}
			return errors.Join(err, undo)
		}
	}
	r.say("tagged %s: %s\nnothing has left this machine; publish with\n  %s", commit, strings.Join(tags, " "), push(tags))
	return nil
}

func push(tags []string) string { return "git push --atomic origin " + strings.Join(tags, " ") }
