package sqlkeys

import (
	"context"
	"fmt"
)

// CheckPeppers returns [ErrInvalid] if none of the keys that work, or will work, was made
// with one of [Config.Peppers]. A key that is made nevertheless would be refused by the
// services that the others are for. Keys that are older than the column pepper count
// neither way, so CheckPeppers returns nil if there are no others.
func (s *Store) CheckPeppers(ctx context.Context) error {
	return s.checkFit(ctx, "Config.Peppers", "no key that works was made with one of them", `k.pepper`, s.pepperIDs())
}

// CheckPrefix returns [ErrInvalid] if there are prefixed keys that work, or will work, and
// none of them starts with [Config.Prefix]. Keys that are older than the column prefix count
// neither way.
func (s *Store) CheckPrefix(ctx context.Context) error {
	return s.checkFit(ctx, fmt.Sprintf("Config.Prefix %q", s.prefix), "no key that works starts with it", `k.prefix`, []any{s.prefix})
}

// checkFit returns an error if the keys have other values in a column, and none of ours.
func (s *Store) checkFit(ctx context.Context, setting, wrong, column string, ours []any) error {
	some := func(condition string) (exists bool, err error) {
		err = s.row(ctx, `SELECT EXISTS (SELECT 1 FROM sqlkeys_keys k WHERE `+column+condition+` (`+placeholders(1, len(ours))+`) AND `+column+` <> ''
			AND `+stateSQL+` IN ('active', 'retiring', 'pending', 'disabled'))`, ours...).Scan(&exists)
		if err != nil {
			return false, fmt.Errorf("sqlkeys: compare with the keys: %w", err)
		}
		return exists, nil
	}
	if fits, err := some(` IN`); err != nil || fits {
		return err
	}
	others, err := some(` NOT IN`)
	if err == nil && others {
		err = fmt.Errorf("sqlkeys: %s: %w: %s", setting, ErrInvalid, wrong)
	}
	return err
}

// prefixOf returns what a new key starts with, for the column prefix.
func (t *tx) prefixOf(secret string) string {
	if checkPrefixed(t.store.prefix, secret) {
		return t.store.prefix
	}
	return ""
}
