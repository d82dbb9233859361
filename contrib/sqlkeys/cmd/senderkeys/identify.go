package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// maxSecret is more than a header can hold.
const maxSecret = 64 << 10

func (a *app) keyIdentify() *cobra.Command {
	return &cobra.Command{
		Use:   "identify",
		Short: "Show whose key a secret is, which it reads from standard input",
		// cobra.NoArgs would print the argument, which is likely to be the secret.
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%s takes no arguments: give the secret on standard input", cmd.CommandPath())
			}
			return nil
		},
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			secret, err := a.readSecret()
			if err != nil {
				return err
			}
			k, err := s.Identify(ctx, secret)
			if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
				return err
			}
			return errors.Join(err, a.printKey(k, err))
		}),
	}
}

// readSecret reads one line from standard input. Its errors do not show any of it.
func (a *app) readSecret() (string, error) {
	b, err := io.ReadAll(io.LimitReader(a.in, maxSecret))
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("standard input: %w: want one secret on one line", sqlkeys.ErrInvalid)
	}
	return secret, nil
}

// checkFit returns an error if a new key of the format would fit no service that accepts the
// other keys, unless -force is given.
func (a *app) checkFit(ctx context.Context, s *sqlkeys.Store, f sqlkeys.Format) error {
	if a.force {
		return nil
	}
	err := s.CheckPeppers(ctx)
	if err == nil && f == sqlkeys.FormatPrefixed {
		err = s.CheckPrefix(ctx)
	}
	if errors.Is(err, sqlkeys.ErrInvalid) {
		return fmt.Errorf("%w: a service would refuse the new key; if you mean it, add -force", err)
	}
	return err
}

// checkRotationFit is checkFit for a key that replaces another one. It leaves errors about
// that one to the rotation.
func (a *app) checkRotationFit(ctx context.Context, s *sqlkeys.Store, id string, f sqlkeys.Format) error {
	k, err := s.Key(ctx, id)
	if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return nil
	}
	if f == "" {
		f = k.Format
	}
	return a.checkFit(ctx, s, f)
}
