package sqlkeys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	maxScopes     = 64
	maxScopesText = 2048 // bytes, with a space between two scopes
	maxNetworks   = 64
)

// SetScopes replaces the scopes of a key: see Scopes of [senderauth.Sender]. Without any,
// the key may do nothing that requires a scope; with [senderauth.AllScopes] it may do
// everything. The bounds are those of [NewKey].
func (s *Store) SetScopes(ctx context.Context, keyID string, scopes []string) error {
	if err := invalid(checkScopes(scopes)); err != nil {
		return err
	}
	return s.restrict(ctx, keyID, "scopes", encodeScopes(scopes))
}

// SetNetworks replaces the networks of a key: see Networks of [senderauth.Sender]. Without
// any, the key works from every address. The bounds are those of [NewKey].
func (s *Store) SetNetworks(ctx context.Context, keyID string, networks []netip.Prefix) error {
	if err := invalid(checkNetworks(networks)); err != nil {
		return err
	}
	return s.restrict(ctx, keyID, "networks", encodeNetworks(networks))
}

// restrict sets one of the two columns that say what a key is good for.
func (s *Store) restrict(ctx context.Context, keyID, column, text string) error {
	return s.changeKey(ctx, keyID, func(t *tx, _ time.Time, k lockedKey) error {
		if err := k.refuse(Revoked); err != nil {
			return err
		}
		entry := k.entry("key." + column)
		entry.Detail = map[string]string{column: text}
		return t.update(entry, `UPDATE sqlkeys_keys SET `+column+` = $2 WHERE id = $1`, k.id, text)
	})
}

// ParseNetwork reads a prefix such as 10.0.0.0/8, or one address, which stands for the
// prefix that has no other.
func ParseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if addr, single := netip.ParseAddr(s); single == nil && addr.Zone() == "" {
		n, err = netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("sqlkeys: network %q: %w: want a prefix such as 10.0.0.0/8, or an address", s, ErrInvalid)
	}
	if err := checkNetwork(n); err != nil {
		return netip.Prefix{}, invalid(err)
	}
	return n, nil
}

func checkScopes(scopes []string) error {
	if len(scopes) > maxScopes {
		return fmt.Errorf("%d scopes, more than %d", len(scopes), maxScopes)
	}
	if n := len(encodeScopes(scopes)); n > maxScopesText {
		return fmt.Errorf("the scopes have %d bytes, more than %d", n, maxScopesText)
	}
	var errs []error
	for _, scope := range scopes {
		if !isScope(scope) {
			errs = append(errs, fmt.Errorf("scope %q is not printable ASCII without space, quote and backslash", scope))
		}
	}
	return errors.Join(errs...)
}

// isScope reports whether s is a scope-token of RFC 6749 section 3.3.
func isScope(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' })
}

func checkNetworks(networks []netip.Prefix) error {
	if len(networks) > maxNetworks {
		return fmt.Errorf("%d networks, more than %d", len(networks), maxNetworks)
	}
	var errs []error
	for i, n := range networks {
		if !n.IsValid() {
			errs = append(errs, fmt.Errorf("networks[%d] is not a valid prefix", i))
			continue
		}
		errs = append(errs, checkNetwork(n))
	}
	return errors.Join(errs...)
}

// checkNetwork reports a valid prefix that matches no address, or other ones than a reader
// would think.
func checkNetwork(n netip.Prefix) error {
	switch {
	case n.Addr().Is4In6():
		return fmt.Errorf("network %v matches no address: write it as IPv4", n)
	case n != n.Masked():
		return fmt.Errorf("network %v has bits after its first %d: write %v", n, n.Bits(), n.Masked())
	}
	return nil
}

func encodeScopes(scopes []string) string { return strings.Join(scopes, " ") }

func encodeNetworks(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, " ")
}

// decodeScopes reads what encodeScopes writes. Its error wraps ErrUnreadable and comes with
// nil.
func decodeScopes(text string) ([]string, error) {
	if text == "" {
		return []string{}, nil
	}
	scopes := strings.Split(text, " ")
	if err := checkScopes(scopes); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return scopes, nil
}

// decodeNetworks reads what encodeNetworks writes. Its error wraps ErrUnreadable and comes
// with nil, which the caller must not take for any address.
func decodeNetworks(text string) ([]netip.Prefix, error) {
	if text == "" {
		return nil, nil
	}
	var networks []netip.Prefix
	for s := range strings.SplitSeq(text, " ") {
		n, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is not a prefix such as 10.0.0.0/8", ErrUnreadable, s)
		}
		networks = append(networks, n)
	}
	if err := checkNetworks(networks); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return networks, nil
}
