package demo

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/keydesk"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

const pagePath = "/settings/api-keys"

// A keysPage is where the person who started the program manages its keys, in a browser
// on the same machine. A link opens it once, and that browser keeps it open until the
// program ends.
type keysPage struct {
	desk http.Handler
	rest http.Handler // for everything else
	link string

	// cookie has the port in its name: a browser sends the cookies of a host to all ports.
	cookie string

	mu      sync.Mutex
	used    bool // whether the link was opened
	session string
}

// newKeysPage puts the page beside the API of the program that listens on addr.
func newKeysPage(store *sqlkeys.Store, limiter senderauth.Limiter, log *slog.Logger, addr net.Addr, api http.Handler) (*keysPage, error) {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return nil, err
	}
	p := &keysPage{rest: api, link: rand.Text(), cookie: "keys_page_" + port, session: rand.Text()}
	p.desk, err = keydesk.New(store, keydesk.Config{
		Prefix:    pagePath,
		Authorize: p.authorize,
		Limits:    limits,
		Limiter:   limiter,
		Logger:    log,
	})
	return p, err
}

func (p *keysPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	link := r.URL.Query().Get("link")
	switch {
	case r.URL.Path != pagePath && !strings.HasPrefix(r.URL.Path, pagePath+"/"), !isLocal(r.RemoteAddr):
		p.rest.ServeHTTP(w, r)
	case r.Method == http.MethodGet && r.URL.Path == pagePath+"/" && link != "":
		p.open(w, r, link)
	default:
		p.desk.ServeHTTP(w, r)
	}
}

// isLocal reports whether a peer is on the same machine.
func isLocal(remoteAddr string) bool {
	peer, err := netip.ParseAddrPort(remoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// open exchanges the link for a cookie, and goes to the address without the link.
func (p *keysPage) open(w http.ResponseWriter, r *http.Request, link string) {
	if !p.take(link) && !p.isOpen(r) {
		closed{}.ServeHTTP(w, r)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: p.cookie, Value: p.session, Path: pagePath, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", "./")
	w.WriteHeader(http.StatusSeeOther)
}

// take reports whether this is the link, for the first time.
func (p *keysPage) take(link string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used || subtle.ConstantTimeCompare([]byte(link), []byte(p.link)) == 0 {
		return false
	}
	p.used = true
	return true
}

// isOpen reports whether the browser has opened the link.
func (p *keysPage) isOpen(r *http.Request) bool {
	c, err := r.Cookie(p.cookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(p.session)) == 1
}

func (p *keysPage) authorize(r *http.Request) (keydesk.Actor, error) {
	if !p.isOpen(r) {
		return keydesk.Actor{}, closed{}
	}
	return keydesk.Actor{Name: "keys page", Operator: true}, nil
}

// closed answers a browser that has not opened the link.
type closed struct{}

func (closed) Error() string { return "the keys page is not open in this browser" }

func (closed) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, "Open the link that the program printed when it started. It works once: start the program again for another one.", http.StatusForbidden)
}

// invite prints the link to the keys page, if there is one and a browser on this machine
// can reach the program.
func (g greeting) invite() {
	at, err := netip.ParseAddrPort(g.addr.String())
	if g.link == "" || err != nil || !at.Addr().IsUnspecified() && !at.Addr().Unmap().IsLoopback() {
		return
	}
	fmt.Fprintf(g, "Manage keys in a browser on this machine (the link works once): http://%s%s/?link=%s\n\n", g.host(), pagePath, g.link)
}
