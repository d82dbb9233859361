package sqlkeys_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A service consists of the store, a cache in front of it, a feed that keeps the
// cache up to date, and a recorder.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	ctx, stop := context.WithCancel(context.Background())

	db, err := sqlkeys.OpenDB(filepath.Join(dir, "keys.db")) // or postgres://…
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
	if err != nil {
		log.Fatal(err)
	}
	var feed sync.WaitGroup
	feed.Go(func() {
		if err := store.Watch(ctx, keys); err != nil {
			log.Print(err)
		}
	})
	uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
	if err != nil {
		log.Fatal(err)
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:  map[string]senderauth.Limit{"default": senderauth.PerMinute(200)},
		Observe: uses.Observe,
	})
	if err != nil {
		log.Fatal(err)
	}
	api := guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, _ := senderauth.SenderFrom(r.Context())
		fmt.Fprint(w, sender.Detail.(sqlkeys.Detail).Environment)
	}))

	// Issue a key and send one request.
	sender, err := store.CreateSender(ctx, sqlkeys.NewSender{})
	if err != nil {
		log.Fatal(err)
	}
	issued, err := store.Issue(ctx, sqlkeys.NewKey{
		SenderID: sender.ID, Environment: sqlkeys.Staging, ExpiresAt: time.Now().AddDate(0, 0, 90),
	})
	if err != nil {
		log.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("x-sender-id", issued.Credentials.SenderID)
	r.Header.Set("x-api-key", issued.Credentials.APIKey)
	w := httptest.NewRecorder()
	api.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)

	stop()
	feed.Wait()
	if err := uses.Close(context.Background()); err != nil { // writes the counts
		log.Fatal(err)
	}
	for u, err := range store.Usage(context.Background(), sqlkeys.UsageFilter{KeyID: issued.Key.ID}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(u.Outcome, u.Requests)
	}
	// Output:
	// 200 staging
	// admitted 1
}

// Each start adopts a pair from the environment. Without such a pair, IssueFirst
// makes a sender and a key at the first start.
func ExampleStore_Adopt() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	db, err := sqlkeys.OpenDB(filepath.Join(dir, "keys.db"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	ctx := context.Background()
	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	for range 2 { // every start may call it
		key, err := store.Adopt(ctx, senderauth.Credentials{
			SenderID: "7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11",
			APIKey:   "0b9d3c1e-6f52-4c8a-b1d7-3a5e9c7f2d10",
		})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(key.SenderID, key.State)
	}
	_, first, err := store.IssueFirst(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(first)
	// Output:
	// 7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11 active
	// 7a1de7b4-3a0e-4d6e-9c2b-0f7f5a1c0a11 active
	// false
}
