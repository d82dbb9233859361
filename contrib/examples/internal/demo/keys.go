package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// keys holds the key store, its cache and its recorder of usage.
type keys struct {
	db    *sql.DB
	store *sqlkeys.Store
	cache *senderauth.Cache // the guard's validator, in front of the store
	uses  *sqlkeys.Recorder // counts the requests of each key

	background sync.WaitGroup // uses db until unwatch
	unwatch    context.CancelFunc
}

// openKeys opens the keys of a database, and creates or migrates its tables.
func openKeys(ctx context.Context, source string, telemetry *otelsender.Telemetry, log *slog.Logger) (_ *keys, err error) {
	k := new(keys)
	peppers, err := sqlkeys.ParsePeppers(os.Getenv("SENDERAUTH_PEPPERS")) // as senderkeys does
	if err != nil {
		return nil, fmt.Errorf("SENDERAUTH_PEPPERS: %w", err)
	}
	if k.db, err = sqlkeys.OpenDB(source); err != nil {
		return nil, fmt.Errorf("-db: %w", err)
	}
	defer func() {
		if err != nil {
			k.db.Close()
		}
	}()
	k.store, err = sqlkeys.Open(ctx, k.db, sqlkeys.Config{
		Migrate: true,
		Peppers: peppers,
		Actor:   "example server",
		Logger:  log,
	})
	if err != nil {
		return nil, fmt.Errorf("-db: %w", err)
	}
	if k.cache, err = senderauth.NewCache(telemetry.Validator(k.store), senderauth.CacheConfig{LookupContext: otelsender.LookupContext}); err != nil {
		return nil, err
	}
	telemetry.ObserveCache(k.cache)
	if k.uses, err = k.store.NewRecorder(sqlkeys.RecorderConfig{}); err != nil {
		return nil, err
	}
	telemetry.ObserveRecorder(k.uses)
	expiry, err := k.store.NewExpiry(sqlkeys.ExpiryConfig{})
	if err != nil {
		return nil, err
	}
	telemetry.ObserveKeys(expiry)
	// Drop a key from the cache as soon as any process revokes it.
	watching, unwatch := context.WithCancel(context.Background())
	k.unwatch = unwatch
	k.background.Go(func() { expiry.Run(watching) })
	k.background.Go(func() {
		if err := k.store.Watch(watching, k.cache); err != nil {
			log.Error("the feed of key changes ended: the cache notices changes late", "error", err)
		}
	})
	return k, nil
}

// close writes the recorded usage and closes the store. Call it when the server has
// stopped. It closes the pool last, because the recorder and the feed use it.
func (k *keys) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := k.uses.Close(ctx)
	if err != nil {
		err = fmt.Errorf("some usage of keys was not recorded: %w", err)
	}
	k.unwatch()
	k.background.Wait()
	return errors.Join(err, k.store.Close(), k.db.Close())
}
