// Command forwardauth answers the checks of a proxy in front of an API: does this request
// have a valid key, is its sender within the limits, and who is it? It fits auth_request of
// nginx, forwardAuth of Traefik, and any proxy that asks with a request of its own. The
// files beside it configure nginx and HAProxy.
//
// The proxy sends the client's x-sender-id and x-api-key, in X-Forwarded-Method,
// X-Forwarded-Uri and X-Forwarded-Proto what the client asked for, and in X-Forwarded-For the
// client's address. It must overwrite these four. The answer is 204 with the sender's ID in
// X-Auth-Sender, or the refusal: as a response, and for proxies that drop its body, as JSON
// in X-Auth-Problem.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
)

// routes are those of the API, with the limits that a request is charged. Paths that none
// of them matches are charged "default".
var routes = map[string][]string{
	"POST /v1/messages": {"messages"},
	"POST /v1/users":    {"default", "sensitive"},
}

var limits = map[string]senderauth.Limit{
	"default":   {Requests: 200, Per: time.Minute, Burst: 50},
	"sensitive": {Requests: 10, Per: time.Minute, Burst: 5},
	"messages":  senderauth.PerMinute(60),
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "forwardauth:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("forwardauth", flag.ExitOnError)
	addr := flags.String("addr", "127.0.0.1:8090", "loopback or private address, and port, to listen on")
	proxy := flags.String("proxy", "127.0.0.1/32", "addresses of the proxy, whose X-Forwarded-Proto and X-Forwarded-For are believed")
	flags.Parse(args)
	prefix, err := netip.ParsePrefix(*proxy)
	if err != nil {
		return fmt.Errorf("-proxy: %w", err)
	}
	if err := internal(*addr); err != nil {
		return err
	}
	// In a service of yours, the key store with its cache: see ../service.
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: os.Getenv("SENT_SENDER_ID"), APIKey: os.Getenv("SENT_API_KEY")})
	if err != nil {
		return fmt.Errorf("SENT_SENDER_ID and SENT_API_KEY: %w", err)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	handler, err := newHandler(keys, prefix, log)
	if err != nil {
		return err
	}
	server := &http.Server{
		Addr:              *addr,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	log.Info("listening", "addr", *addr)
	return server.ListenAndServe()
}

// internal refuses an address that clients could reach. A client that asked forwardauth
// directly could test keys and spend a sender's quota without passing the proxy.
func internal(addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("-addr: %w", err)
	}
	if ip := ap.Addr(); !ip.IsLoopback() && !ip.IsPrivate() {
		return fmt.Errorf("-addr: %s is neither a loopback nor a private address", addr)
	}
	return nil
}

// newHandler returns the handler that answers the checks of the proxy.
func newHandler(keys senderauth.Validator, proxy netip.Prefix, log *slog.Logger) (http.Handler, error) {
	guard, err := senderauth.New(keys, senderauth.Config{
		Limits:         limits,
		RequireTLS:     true,
		TrustedProxies: []netip.Prefix{proxy},
		ServeProblem:   serveProblem,
		Observe:        senderauth.LogEvents(log, nil),
	})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for pattern := range routes {
		mux.Handle(pattern, http.NotFoundHandler()) // only asked which pattern matches
	}
	check := guard.ChargingBy(func(r *http.Request) []string {
		_, pattern := mux.Handler(r)
		if names, ok := routes[pattern]; ok {
			return names
		}
		return []string{"default"}
	}).Wrap(http.HandlerFunc(pass))

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, err := original(r)
		switch {
		case errors.Is(err, errTarget): // of the client's making, and it may hold a secret: not logged
			serveProblem(w, r, &senderauth.Problem{Status: 400, Title: "Bad Request", Detail: "The target of the request is malformed."}, senderauth.Refused)
		case err != nil:
			log.Error("the proxy is not configured for forwardauth", "error", err)
			serveProblem(w, r, &senderauth.Problem{Status: 500, Title: "Internal Server Error", Detail: "An internal error occurred."}, senderauth.Failed)
		default:
			check.ServeHTTP(w, r)
		}
	}), nil
}

var errTarget = errors.New("X-Forwarded-Uri is not the target of a request")

// original returns the request that the proxy asks about. It has no body. A target with a
// fragment is malformed: nginx forwards it, and an upstream may find another route by it.
func original(r *http.Request) (*http.Request, error) {
	method, uri := r.Header["X-Forwarded-Method"], r.Header["X-Forwarded-Uri"]
	if len(method) != 1 || len(uri) != 1 {
		return r, errors.New("it must send X-Forwarded-Method and X-Forwarded-Uri, once each")
	}
	u, err := url.ParseRequestURI(uri[0])
	if err != nil || strings.Contains(uri[0], "#") {
		return r, errTarget
	}
	o := r.WithContext(r.Context())
	o.Method, o.URL, o.RequestURI = method[0], u, uri[0]
	o.Body, o.ContentLength = http.NoBody, 0
	return o, nil
}

// pass answers that the request may go on.
func pass(w http.ResponseWriter, r *http.Request) {
	sender, _ := senderauth.SenderFrom(r.Context())
	w.Header().Set("X-Auth-Sender", sender.ID)
	w.WriteHeader(http.StatusNoContent)
}

// serveProblem answers with the problem, and with its JSON in a header.
func serveProblem(w http.ResponseWriter, r *http.Request, p *senderauth.Problem, _ senderauth.Outcome) {
	body, err := json.Marshal(struct {
		Status int    `json:"status"`
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Type   string `json:"type"`
	}{p.Status, p.Title, p.Detail, "about:blank"})
	if err == nil {
		w.Header().Set("X-Auth-Problem", string(body))
	}
	p.ServeHTTP(w, r)
}
