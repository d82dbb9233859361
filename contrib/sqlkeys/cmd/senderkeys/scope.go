package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) keyScope() *cobra.Command {
	var all, none bool
	scope := a.replace("scope KEYID [SCOPE]...", "Replace the scopes of a key, which say what it may do",
		func(ctx context.Context, s *sqlkeys.Store, id string, scopes []string) error {
			if all {
				scopes = []string{senderauth.AllScopes}
			}
			return s.SetScopes(ctx, id, scopes)
		}, &all, &none)
	scope.Flags().BoolVar(&all, "all", false, "let the key do everything")
	scope.Flags().BoolVar(&none, "none", false, "let the key do nothing that requires a scope")
	return scope
}

func (a *app) keyNetwork() *cobra.Command {
	var anywhere bool
	network := a.replace("network KEYID [PREFIX]...", "Replace the networks of a key, which are the only ones it works from",
		func(ctx context.Context, s *sqlkeys.Store, id string, texts []string) error {
			networks, err := parseNetworks(texts)
			if err != nil {
				return err
			}
			return s.SetNetworks(ctx, id, networks)
		}, &anywhere)
	network.Flags().BoolVar(&anywhere, "any", false, "let the key work from every address")
	return network
}

// replace returns a command that sets a list of a key. The list is given in arguments or by
// one of the flags, so that a forgotten argument, or a variable that is empty, changes
// nothing.
func (a *app) replace(use, short string, set func(ctx context.Context, s *sqlkeys.Store, id string, values []string) error, flags ...*bool) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			given := 0
			for _, flag := range flags {
				if *flag {
					given++
				}
			}
			if len(args) > 1 {
				given++
			}
			if len(args) > 0 && given == 1 {
				return nil
			}
			_, arguments, _ := strings.Cut(cmd.Use, " ")
			return fmt.Errorf("%s takes %s, or a flag in place of the list", cmd.CommandPath(), arguments)
		},
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, args []string) error {
			change := func(ctx context.Context, s *sqlkeys.Store, id string) error { return set(ctx, s, id, args[1:]) }
			return a.then(a.showKey, change)(ctx, s, args[0])
		}),
	}
}

// restrictionFlags adds the flags that say what a new key is good for. They are read by the
// function that it returns.
func restrictionFlags(issue *cobra.Command, n *sqlkeys.NewKey) (read func() error) {
	var noScopes bool
	var networks []string
	issue.Flags().StringArrayVar(&n.Scopes, "scope", nil, "`SCOPE` that the key has, such as orders:read; may be repeated (default all)")
	issue.Flags().BoolVar(&noScopes, "no-scopes", false, "let the key do nothing that requires a scope")
	issue.MarkFlagsMutuallyExclusive("scope", "no-scopes")
	issue.Flags().StringArrayVar(&networks, "network", nil, "`PREFIX` that the key works from, such as 10.0.0.0/8, or one address; may be repeated (default any)")
	return func() (err error) {
		if noScopes {
			n.Scopes = []string{}
		}
		n.Networks, err = parseNetworks(networks)
		return err
	}
}

func parseNetworks(texts []string) (networks []netip.Prefix, err error) {
	for _, text := range texts {
		n, wrong := sqlkeys.ParseNetwork(text)
		networks, err = append(networks, n), errors.Join(err, wrong)
	}
	return networks, err
}

// scopesText returns two texts that are no scopes if it has none to show.
func scopesText(scopes []string) string {
	switch {
	case scopes == nil:
		return "(unreadable)"
	case len(scopes) == 0:
		return "(no scopes)"
	}
	return strings.Join(scopes, " ")
}

func networksText(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return orDash(strings.Join(texts, " "))
}
