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

// open serves exactly path without a guard, and everything else with rest. A ServeMux
// around a guard would redirect unclean paths before the guard authenticates them.
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

// serve serves until SIGINT or SIGTERM, then finishes the requests in flight. A second
// signal ends the program at once.
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
	// No request takes longer than the read and write timeouts together.
	ctx, done := context.WithTimeout(context.Background(), server.ReadTimeout+server.WriteTimeout)
	defer done()
	if err := server.Shutdown(ctx); err != nil {
		return errors.Join(errors.New("requests were cut off"), err)
	}
	log.Info("stopped")
	return nil
}
