// Package sqlkeys keeps senders and their API keys in PostgreSQL or SQLite,
// and is the [senderauth.Validator] over them.
//
//	db, err := sqlkeys.OpenDB("postgres://app@db/app") // or the path of a SQLite file
//	store, err := sqlkeys.Open(ctx, db, sqlkeys.Config{Migrate: true})
//	keys, err := senderauth.NewCache(store, senderauth.CacheConfig{})
//	go store.Watch(ctx, keys)                           // a revoked key is refused at once, by every instance
//	uses, err := store.NewRecorder(sqlkeys.RecorderConfig{})
//	guard, err := senderauth.New(keys, senderauth.Config{Observe: uses.Observe, …})
//
// # Keys
//
// A key is shown once, when it is issued. The store keeps its digest: SHA-256,
// or HMAC-SHA-256 with a pepper ([Config.Peppers]). A random key of 122 bits
// or more needs no slow hash. What identifies a key everywhere else is its
// [Key.ID], which is safe to log.
//
// Every change is one transaction with a row of the audit ([Store.Audit]): who
// ([WithActor]), what and when. A revoked key stays as a tombstone.
//
// # Clocks
//
// The clock of the database decides whether a key is valid yet, expired, or
// past its grace period, and dates every change: instances whose clocks differ
// agree. The clock of the process decides only how long the cache of that
// process remembers an answer ([senderauth.Sender.Expires]), and in which hour
// its [Recorder] counts.
//
// # Tables
//
// All tables, functions and channels are called sqlkeys_something, so that
// they can live in the database of an application. Changes made to them by
// hand are seen by [Store.Watch].
package sqlkeys
