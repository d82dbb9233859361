package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// instanceEnv holds the settings of an instance, as JSON, in the environment of the
// process that is one.
const instanceEnv = "SENDERAUTH_SOAK_INSTANCE"

// The settings of an instance.
type settings struct {
	Postgres, Redis  string
	Instances        int
	TTL, RejectedTTL time.Duration
}

// limits are those of every sender. Their names are the paths that charge them.
var limits = map[string]senderauth.Limit{
	"default":  {Requests: 4, Per: time.Second, Burst: 20},
	"messages": {Requests: 2, Per: time.Second, Burst: 6},
}

// paths are the paths of an instance, and the limits that each of them charges.
var paths = [...]struct {
	path    string
	charges []string
}{
	{"/default", []string{"default"}},
	{"/messages", []string{"messages"}},
	{"/both", []string{"default", "messages"}},
}

// A state is what an instance says about itself.
type state struct {
	Goroutines int
	Heap       uint64 // bytes of live objects
	Trouble    []span // when it decided without Redis, or a call of Redis failed
	Fallback   bool   // it does not call Redis now
	Recorder   sqlkeys.RecorderStats
}

// An identity is what a handler answers: who the guard says is calling.
type identity struct{ Sender, Key string }

// runInstance serves requests until standard input ends. It prints its address first,
// and its last state when everything is closed.
func runInstance(given string) error {
	var s settings
	if err := json.Unmarshal([]byte(given), &s); err != nil {
		return err
	}
	i, err := newInstance(s)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: i.handler()}
	go server.Serve(listener)
	fmt.Println(listener.Addr())
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err = errors.Join(server.Shutdown(ctx), i.close(ctx))
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(i.state()))
}

// An instance is one process of the service.
type instance struct {
	guard    *senderauth.Guard
	recorder *sqlkeys.Recorder
	trouble  trouble
	close    func(ctx context.Context) error
}

func newInstance(s settings) (*instance, error) {
	i := new(instance)
	db, err := sqlkeys.OpenDB(s.Postgres)
	if err != nil {
		return nil, err
	}
	store, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{})
	if err != nil {
		return nil, err
	}
	cache, err := senderauth.NewCache(store, senderauth.CacheConfig{TTL: s.TTL, RejectedTTL: s.RejectedTTL, Entries: 2000})
	if err != nil {
		return nil, err
	}
	if i.recorder, err = store.NewRecorder(sqlkeys.RecorderConfig{}); err != nil {
		return nil, err
	}
	logging.Disable() // go-redis reports each failed attempt to connect
	client := redis.NewClient(&redis.Options{Addr: s.Redis, ContextTimeoutEnabled: true})
	client.AddHook(&i.trouble)
	limiter, err := redislimit.New(client, redislimit.Config{Instances: s.Instances, OnMode: i.trouble.mode})
	if err != nil {
		return nil, err
	}
	i.guard, err = senderauth.New(cache, senderauth.Config{Limits: limits, Limiter: limiter, Observe: i.recorder.Observe})
	if err != nil {
		return nil, err
	}
	watching, unwatch := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { store.Watch(watching, cache) })
	i.close = func(ctx context.Context) error {
		err := i.recorder.Close(ctx)
		unwatch()
		watch.Wait()
		return errors.Join(err, limiter.Close(), client.Close(), store.Close(), db.Close())
	}
	return i, nil
}

func (i *instance) handler() http.Handler {
	mux := http.NewServeMux()
	for _, p := range paths {
		mux.Handle("GET "+p.path, i.guard.Charging(p.charges...).Wrap(http.HandlerFunc(identify)))
	}
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("gc") {
			runtime.GC()
		}
		json.NewEncoder(w).Encode(i.state())
	})
	return mux
}

func identify(w http.ResponseWriter, r *http.Request) {
	s, _ := senderauth.SenderFrom(r.Context())
	json.NewEncoder(w).Encode(identity{Sender: s.ID, Key: s.KeyID})
}

func (i *instance) state() state {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	spans, fallback := i.trouble.read()
	return state{Goroutines: runtime.NumGoroutine(), Heap: m.HeapAlloc, Trouble: spans, Fallback: fallback, Recorder: i.recorder.Stats()}
}
