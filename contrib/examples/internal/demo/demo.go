// Package demo holds the parts that the example programs share, so that each program
// shows only its router.
package demo

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/otelsender"
)

// Main runs the program called name. routes returns the handler of the API, all of it
// behind guard. Each of observers gets every decision.
func Main(name string, routes func(guard *senderauth.Guard) http.Handler, observers ...func(context.Context, senderauth.Event)) {
	program{name: name, routes: routes, observers: observers}.main()
}

// MainWithKeysPage is Main with a page where people manage the keys in a browser.
func MainWithKeysPage(name string, routes func(guard *senderauth.Guard) http.Handler) {
	program{name: name, routes: routes, page: true}.main()
}

type program struct {
	name      string
	routes    func(*senderauth.Guard) http.Handler
	observers []func(context.Context, senderauth.Event)
	page      bool // whether there is a keys page
}

func (p program) main() {
	if err := p.run(); err != nil {
		oneLine := strings.NewReplacer("\n\t", " ", "\n", "; ")
		fmt.Fprintf(os.Stderr, "%s: %s\n", p.name, oneLine.Replace(err.Error()))
		os.Exit(1)
	}
}

// settings are the program's flags.
type settings struct {
	addr string
	log  slog.Level

	db string

	redis        string
	redisTimeout time.Duration
	instances    int
}

func parseFlags(name string) (settings, error) {
	var set settings
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // report a mistake in one line, without the usage
	flags.StringVar(&set.addr, "addr", "127.0.0.1:8080", "host:port to listen on; port 0 picks a free one")
	flags.TextVar(&set.log, "log", slog.LevelInfo, "lowest level to log: DEBUG adds each admitted request, INFO each refusal")
	flags.StringVar(&set.db, "db", "", "database of the keys: path of a SQLite file, or PostgreSQL URL (default $SENDERAUTH_DB, or else senderauth.db)")
	flags.StringVar(&set.redis, "redis", "", "URL of the Redis that shares the limits, followed by more nodes of a Cluster after commas (default: limits are kept in memory)")
	flags.DurationVar(&set.redisTimeout, "redis-timeout", 50*time.Millisecond, "how long a request waits for Redis before it is limited without it")
	flags.IntVar(&set.instances, "instances", 1, "number of programs that share the limits; while Redis is unreachable, each enforces its share")
	if err := flags.Parse(os.Args[1:]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			flags.Usage()
			os.Exit(0)
		}
		return set, err
	}
	// A URL may hold a password, so it must not become the flag's default, which -h shows.
	set.db = cmp.Or(set.db, os.Getenv("SENDERAUTH_DB"), "senderauth.db")
	switch {
	case flags.NArg() > 0:
		return set, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case set.redis == "" && set.instances != 1:
		return set, errors.New("-instances needs -redis: limits in memory are not shared")
	}
	return set, nil
}

var limits = map[string]senderauth.Limit{
	"default":   {Requests: 200, Per: time.Minute, Burst: 50},
	"sensitive": {Requests: 10, Per: time.Minute, Burst: 5},
	"messages":  senderauth.PerMinute(60),
}

func (p program) run() (err error) {
	set, err := parseFlags(p.name)
	if err != nil {
		return err
	}
	handler := slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: set.log})
	log := slog.New(handler)

	// Listen first, so that no key is made for a server that cannot listen.
	listener, err := net.Listen("tcp", set.addr)
	if err != nil {
		return err
	}
	defer listener.Close()
	// The global providers do nothing unless a program sets them.
	telemetry, err := otelsender.New(otelsender.Config{})
	if err != nil {
		return err
	}
	limiter, closeLimiter, err := openLimiter(set, telemetry, log)
	if err != nil {
		return err
	}
	defer closeLimiter()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	keys, err := openKeys(ctx, set.db, telemetry, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.close()) }()

	guard, err := senderauth.New(keys.cache, senderauth.Config{
		Limits:   limits,
		Limiter:  limiter,
		StripKey: true,
		Observe:  senderauth.Observers(append(p.observers, keys.uses.Observe, telemetry.Observe, senderauth.LogEvents(log, nil))...),
	})
	if err != nil {
		return err
	}
	api := p.routes(guard)
	hello := greeting{Writer: os.Stdout, addr: listener.Addr(), db: set.db}
	if p.page {
		page, err := newKeysPage(keys.store, limiter, log, listener.Addr(), api)
		if err != nil {
			return err
		}
		api, hello.link = page, page.link
	}
	if err := firstKey(ctx, keys.store, log, hello); err != nil {
		return err
	}
	return serve(listener, newServer(open("/healthz", healthz, api), handler), log)
}

func newServer(h http.Handler, log slog.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log, slog.LevelError),
	}
}
