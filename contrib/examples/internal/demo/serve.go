package demo

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

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
