package demo

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// keys are the key store and what goes with it.
type keys struct {
	db    *sql.DB
	store *sqlkeys.Store
	cache *senderauth.Cache // what the guard asks: it looks up a key once a minute
	uses  *sqlkeys.Recorder // counts the requests of each key

	unwatch context.CancelFunc
	watched chan struct{} // closed: nobody tells the cache of changes any more
}

// openKeys returns the keys of a database, which it creates or brings up to
// date.
func openKeys(ctx context.Context, source string, log *slog.Logger) (_ *keys, err error) {
	k := &keys{watched: make(chan struct{})}
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
	if k.cache, err = senderauth.NewCache(k.store, senderauth.CacheConfig{}); err != nil {
		return nil, err
	}
	if k.uses, err = k.store.NewRecorder(sqlkeys.RecorderConfig{}); err != nil {
		return nil, err
	}
	// A key that is revoked, by whomever, is refused at once.
	watching, unwatch := context.WithCancel(context.Background())
	k.unwatch = unwatch
	go func() {
		defer close(k.watched)
		if err := k.store.Watch(watching, k.cache); err != nil {
			log.Error("changes of keys are seen late", "error", err)
		}
	}()
	return k, nil
}

// close comes when the server has stopped. The pool is closed last: what was
// gathered is written through it, and the feed has a connection of it.
func (k *keys) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := k.uses.Close(ctx)
	if err != nil {
		err = fmt.Errorf("the use of keys is not recorded in full: %w", err)
	}
	k.unwatch()
	<-k.watched
	return errors.Join(err, k.store.Close(), k.db.Close())
}
