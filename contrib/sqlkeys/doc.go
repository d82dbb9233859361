// Package sqlkeys keeps senders and their API keys in PostgreSQL or SQLite, and
// validates credentials against them as a [senderauth.Validator].
//
//	db, err := sqlkeys.OpenDB("postgres://app@db/app") // or the path of a SQLite file
//	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
//	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
//	go store.Watch(ctx, keys)                           // every instance refuses a revoked key at once
//	uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
//	guard, err := senderauth.New(keys, senderauth.Config{Observe: uses.Observe, …})
//
// # Keys
//
// A key is shown once, when it is issued. The store keeps its digest: SHA-256,
// or HMAC-SHA-256 with a pepper ([Config.Peppers]). The keys have at least 122
// random bits, so they need no slow hash. Everything but the issue of a key uses
// its public [Key.ID], which is safe to log.
//
// Every change is one transaction. It adds a row to the audit ([Store.Audit])
// with the actor ([WithActor]), the action and the time. The row of a revoked
// key stays.
//
// # Clocks
//
// The clock of the database decides whether a key is pending, expired or past
// its grace period, and it dates every change. So instances agree even if their
// clocks differ. The clock of an instance decides only how long its cache
// remembers a sender (Expires of [senderauth.Sender]), and in which hour its
// [Recorder] counts a request.
//
// # Tables
//
// The names of all tables, functions and channels start with sqlkeys_, so they
// can share a database with an application. [Store.Watch] also notices changes
// that are made by hand in SQL.
package sqlkeys
