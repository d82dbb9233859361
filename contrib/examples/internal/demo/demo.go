// Package demo is what the example programs have in common, so that each of
// them shows its router only.
package demo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/senderauth/senderauth"
)

// Main runs the program called name. routes makes a handler of the API with
// guard in front of all of it.
func Main(name string, routes func(guard *senderauth.Guard) http.Handler) {
	if err := run(name, routes); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		os.Exit(1)
	}
}

// settings are the program's flags.
type settings struct {
	addr string
	log  slog.Level
}

func run(name string, routes func(*senderauth.Guard) http.Handler) error {
	var set settings
	flag.StringVar(&set.addr, "addr", "127.0.0.1:8080", "host:port to listen on; port 0 takes a free one")
	flag.TextVar(&set.log, "log", slog.LevelInfo, "least level that is logged: DEBUG has each admitted request, INFO each refusal")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("the argument %q is not understood", flag.Arg(0))
	}
	handler := slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: set.log})
	log := slog.New(handler)

	pair, err := credentialsFrom(os.Getenv)
	if err != nil {
		return err
	}
	keys, limiter, err := backends(set, pair)
	if err != nil {
		return err
	}
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits: map[string]senderauth.Limit{
			"default":   {Requests: 200, Per: time.Minute, Burst: 50},
			"sensitive": {Requests: 10, Per: time.Minute, Burst: 5},
			"messages":  senderauth.PerMinute(60),
		},
		Limiter:  limiter,
		StripKey: true,
		Observe:  observe(log),
	})
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", set.addr)
	if err != nil {
		return err
	}
	pair.introduce(os.Stdout, listener.Addr())
	return serve(listener, &http.Server{
		Handler:           open("/healthz", healthz, routes(guard)),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(handler, slog.LevelError),
	}, log)
}

// backends is the one place that says where keys and buckets are kept. A nil
// limiter keeps them in memory.
func backends(_ settings, pair credentials) (senderauth.Validator, senderauth.Limiter, error) {
	keys, err := senderauth.Static(pair.Credentials)
	return keys, nil, err
}

// open serves exactly path without a guard. A ServeMux outside of a guard would
// redirect other spellings of other paths before anybody is authenticated.
func open(path string, h http.HandlerFunc, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			h(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

func healthz(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, "ok\n")
}

// serve serves until SIGINT or SIGTERM, and then finishes the requests that
// are in flight. A second signal ends the program at once.
func serve(listener net.Listener, server *http.Server, log *slog.Logger) error {
	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()

	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	log.Info("listening", "addr", listener.Addr().String())
	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	cancel()
	log.Info("stopping")
	// A request may take as long as reading and answering it may take.
	ctx, done := context.WithTimeout(context.Background(), server.ReadTimeout+server.WriteTimeout)
	defer done()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(errors.New("requests were cut off"), err)
	}
	log.Info("stopped")
	return nil
}

// observe logs what a guard decides. No event holds a key.
func observe(log *slog.Logger) func(context.Context, senderauth.Event) {
	return func(ctx context.Context, e senderauth.Event) {
		level := slog.LevelInfo
		switch {
		case e.Outcome == senderauth.Failed || e.Outcome == senderauth.Unavailable:
			level = slog.LevelError
		case e.Outcome == senderauth.Admitted && e.Err != nil:
			level = slog.LevelWarn // served without a limit, or from a stale answer
		case e.Outcome == senderauth.Admitted:
			level = slog.LevelDebug
		}
		if !log.Enabled(ctx, level) {
			return
		}
		attrs := []slog.Attr{slog.String("outcome", string(e.Outcome)), slog.Int64("elapsed_us", e.Elapsed.Microseconds())}
		for _, a := range []slog.Attr{
			slog.String("sender", e.Sender.ID),
			slog.String("key_id", e.Sender.KeyID),
			slog.String("limit", e.Limit),
		} {
			if a.Value.String() != "" {
				attrs = append(attrs, a)
			}
		}
		if e.Err != nil {
			attrs = append(attrs, slog.String("error", e.Err.Error()))
		}
		log.LogAttrs(ctx, level, "request", attrs...)
	}
}
