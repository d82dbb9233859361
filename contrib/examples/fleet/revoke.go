package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"golang.org/x/sync/errgroup"
)

// revoke revokes a key that all instances serve, and tells when each of them refuses it.
func (r *round) revoke(ctx context.Context, key sqlkeys.Issued) error {
	client := newClient()
	defer client.CloseIdleConnections()
	for _, i := range r.instances {
		if a := send(client, i, key.Credentials); a.status != http.StatusOK {
			return fmt.Errorf("%s answered a new key with %d, %w", i.name, a.status, a.err)
		}
	}
	if err := r.store.Revoke(ctx, key.Key.ID); err != nil {
		return err
	}
	revoked := time.Now()
	r.screen.say("A key is revoked")
	var all errgroup.Group
	refused := make([]time.Duration, len(r.instances))
	for n, i := range r.instances {
		all.Go(func() (err error) {
			refused[n], err = untilRefused(ctx, client, i, key, revoked)
			return err
		})
	}
	err := all.Wait()
	for n, i := range r.instances {
		if refused[n] > 0 {
			r.screen.say("  %s refuses it %v later", i.name, milliseconds(refused[n]))
		}
	}
	return err
}

// untilRefused sends the revoked key until the instance refuses it, and then a few times
// more. A 429 means that the key is still good.
func untilRefused(ctx context.Context, client *http.Client, i *instance, key sqlkeys.Issued, revoked time.Time) (time.Duration, error) {
	const atMost, more = time.Second, 20
	var first time.Duration
	for n := 0; n < more; {
		a := send(client, i, key.Credentials)
		since := time.Since(revoked)
		switch {
		case a.err != nil:
			return first, fmt.Errorf("%s: %w", i.name, a.err)
		case a.status == http.StatusUnauthorized:
			if n++; first == 0 {
				first = since
			}
		case a.status != http.StatusOK && a.status != http.StatusTooManyRequests, first > 0, since > atMost:
			return first, fmt.Errorf("%s answered a revoked key with %d after %v", i.name, a.status, milliseconds(since))
		}
		if err := pause(ctx, 2*time.Millisecond); err != nil {
			return first, err
		}
	}
	return first, nil
}
