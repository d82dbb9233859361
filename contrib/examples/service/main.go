// Command service is a whole server in one file, made to be copied.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	flags := flag.NewFlagSet("service", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // a mistake is logged below, in one line
	addr := flags.String("addr", "127.0.0.1:8080", "host:port to listen on")
	instances := flags.Int("instances", 1, "number of processes that share the limits in Redis")
	err := flags.Parse(os.Args[1:])
	if err == nil {
		err = run(*addr, *instances, log)
	}
	if errors.Is(err, flag.ErrHelp) {
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
	} else if err != nil {
		log.Error("the service ended", "error", err)
		os.Exit(1)
	}
}

// run opens the keys, serves, and closes each part before the parts that it uses.
func run(addr string, instances int, log *slog.Logger) (err error) {
	peppers, err1 := sqlkeys.ParsePeppers(os.Getenv("SENDERAUTH_PEPPERS"))
	db, err2 := sqlkeys.OpenDB(os.Getenv("SENDERAUTH_DB"))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	defer db.Close()
	store, err := sqlkeys.Open(context.Background(), db, sqlkeys.Config{Migrate: true, Peppers: peppers, Logger: log})
	if err != nil {
		return err
	}
	defer store.Close()
	keys, err1 := senderauth.NewCache(store, senderauth.CacheConfig{})
	uses, err2 := store.NewRecorder(sqlkeys.RecorderConfig{})
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	var feed sync.WaitGroup
	watching, unwatch := context.WithCancel(context.Background())
	feed.Go(func() {
		if err := store.Watch(watching, keys); err != nil {
			log.Error("changed keys are noticed late", "error", err)
		}
	})
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		err = errors.Join(err, uses.Close(ctx)) // writes the usage since the last write
		unwatch()
		feed.Wait()
	}()
	return serve(addr, instances, keys, uses, log)
}

// serve serves until SIGINT or SIGTERM, and then finishes the requests in flight.
func serve(addr string, instances int, keys *senderauth.Cache, uses *sqlkeys.Recorder, log *slog.Logger) error {
	cfg := senderauth.Config{StripKey: true, Observe: senderauth.Observers(uses.Observe, senderauth.LogEvents(log, nil))}
	cfg.Limits = map[string]senderauth.Limit{"default": {Requests: 200, Per: time.Minute, Burst: 50}, "messages": senderauth.PerMinute(60)}
	if url := os.Getenv("SENDERAUTH_REDIS"); url != "" { // otherwise the limits are in memory
		options, err := redis.ParseURL(url)
		if err != nil {
			return errors.New("SENDERAUTH_REDIS is not the URL of a Redis") // err may show its password
		}
		options.ContextTimeoutEnabled = true
		logging.Disable() // onMode reports what matters
		client := redis.NewClient(options)
		onMode := func(m redislimit.Mode, err error) { log.Warn("limits changed mode", "mode", m, "error", err) }
		limiter, err := redislimit.New(client, redislimit.Config{Instances: instances, OnMode: onMode})
		if err != nil {
			return err
		}
		defer func() { limiter.Close(); client.Close() }()
		cfg.Limiter = limiter
	}
	guard, err1 := senderauth.New(keys, cfg)
	listener, err2 := net.Listen("tcp", addr)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	server := &http.Server{
		Handler: probes(keys, routes(guard)), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError), MaxHeaderBytes: 16 << 10,
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("listening", "addr", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
		cancel() // a second signal ends the program at once
	}
	ctx, cancel := context.WithTimeout(context.Background(), server.ReadTimeout+server.WriteTimeout)
	defer cancel()
	return server.Shutdown(ctx)
}

// probes answers what needs no key. A ServeMux around the guard would redirect unclean
// paths before the guard authenticates them, so it compares paths.
func probes(keys *senderauth.Cache, api http.Handler) http.HandlerFunc {
	nobody := senderauth.Credentials{SenderID: "readyz", APIKey: "00000000-0000-4000-8000-000000000000"}
	return func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz":
		case "/readyz": // the cache keeps a flood of these from the store
			if _, err := keys.Validate(r.Context(), nobody); !errors.Is(err, senderauth.ErrInvalidKey) {
				http.Error(w, "the key store does not answer", http.StatusServiceUnavailable)
			}
		default:
			api.ServeHTTP(w, r)
		}
	}
}

// routes charges every request to "default", and messages to a limit of their own as well.
func routes(guard *senderauth.Guard) http.Handler {
	whoami := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sender, _ := senderauth.SenderFrom(r.Context())
		io.WriteString(w, sender.ID+"\n")
	})
	mux := http.NewServeMux()
	mux.Handle("GET /v1/contacts", whoami)
	mux.Handle("POST /v1/messages", guard.Charging("messages").Wrap(whoami))
	return guard.Wrap(mux)
}
