package keydesk

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// Config configures [New], which reads it once.
type Config struct {
	_ [0]func()

	// Prefix is the path that the handler is mounted at, such as /settings/api-keys,
	// if requests arrive with it. Leave it empty at the root and inside
	// [net/http.StripPrefix]. All links are relative, so a proxy may add or remove a
	// path in front.
	Prefix string
	// Authorize says who makes a request. It is required, and runs for every request
	// except those for the style sheet, the script and the icon. Nothing but its
	// result gives access.
	//
	// An error that is or wraps an [net/http.Handler], such as that of [SignIn] or a
	// [senderauth.Problem], answers the request itself.
	// [ErrForbidden] is answered 403. Any other error means that nobody can say who
	// it is: it is logged and answered 503. Authorize is called concurrently.
	Authorize func(*http.Request) (Actor, error)
	// ReadOnly refuses every change, and hides the forms.
	ReadOnly bool
	// Limits and Limiter are those of the guard's [senderauth.Config]. The page shows
	// the limits of a sender, and asks the Limiter what is left of them, at no cost.
	// Without Limits it shows only the limits that senders have of their own. Without a
	// Limiter it does not show what is left. Leave Limiter nil if another instance has
	// the buckets in its memory.
	Limits  map[string]senderauth.Limit
	Limiter senderauth.Limiter
	// Logger receives a record for each answer with a status of 500 or above, and
	// for an Actor that is refused. Nil discards them. No record has a key in it.
	Logger *slog.Logger
}

// validate reports every mistake, in the order of the fields.
func (cfg *Config) validate() error {
	var errs []error
	if p := cfg.Prefix; p != "" && (p[0] != '/' || p == "/" || path.Clean(p) != p || strings.ContainsAny(p, "{}%?#\\")) {
		errs = append(errs, fmt.Errorf("keydesk: Config.Prefix %q: want a path such as /settings/api-keys, without a slash at the end", p))
	}
	if cfg.Authorize == nil {
		errs = append(errs, errors.New("keydesk: Config.Authorize is nil: say who may see which keys"))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Limits)) {
		if err := cfg.Limits[name].Validate(); err != nil {
			errs = append(errs, fmt.Errorf("keydesk: Config.Limits[%q]: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// New returns the page as a handler over store. It reports every mistake in cfg at
// once. The handler is safe for concurrent use and keeps no state between requests.
func New(store *sqlkeys.Store, cfg Config) (http.Handler, error) {
	var errs []error
	if store == nil {
		errs = append(errs, errors.New("keydesk: the store is nil"))
	}
	if err := errors.Join(append(errs, cfg.validate())...); err != nil {
		return nil, err
	}
	d := &desk{
		store:     store,
		prefix:    cfg.Prefix,
		authorize: cfg.Authorize,
		readOnly:  cfg.ReadOnly,
		limits:    maps.Clone(cfg.Limits),
		limiter:   cfg.Limiter,
		log:       cfg.Logger,
		mux:       http.NewServeMux(),
	}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	d.mount(routes())
	return d, nil
}

// A desk is the handler.
type desk struct {
	store     *sqlkeys.Store
	prefix    string
	authorize func(*http.Request) (Actor, error)
	readOnly  bool
	limits    map[string]senderauth.Limit
	limiter   senderauth.Limiter
	log       *slog.Logger

	origins http.CrossOriginProtection
	mux     *http.ServeMux // paths without the prefix
}

// storeTimeout is how long a request may wait for the database.
const storeTimeout = 10 * time.Second

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	protect(w.Header())
	inside, ok := strings.CutPrefix(r.URL.Path, d.prefix)
	switch {
	case !ok || !isClean(inside) || hidesSlash(r.URL):
		http.NotFound(w, r)
	case inside == "":
		// The page itself ends in a slash, which relative links need.
		w.Header().Set("Location", lastSegment(r)+"/")
		w.WriteHeader(http.StatusPermanentRedirect)
	default:
		d.mux.ServeHTTP(w, at(r, inside))
	}
}

// protect sets the fields that every answer has.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "+
		"form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	// Under "no-referrer" a browser would send Origin: null with a form.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// isClean reports whether a path inside of the prefix is one that the handler may
// have a route for.
func isClean(inside string) bool {
	if inside == "" || inside == "/" {
		return true
	}
	return inside[0] == '/' && path.Clean(inside) == inside
}

// hidesSlash reports whether a path has a slash that a browser does not take for one, so
// that relative links on the page would lead out of the desk.
func hidesSlash(u *url.URL) bool {
	return strings.Contains(strings.ToUpper(u.RawPath), "%2F")
}

// lastSegment returns the last segment of the path that the client asked for, as a
// relative reference. The path in r may have lost it to StripPrefix.
func lastSegment(r *http.Request) string {
	asked := r.URL
	if u, err := url.ParseRequestURI(r.RequestURI); err == nil {
		asked = u
	}
	return "./" + path.Base("/"+asked.EscapedPath())
}

// at returns r with another path.
func at(r *http.Request, path string) *http.Request {
	moved := *r
	moved.URL = new(url.URL)
	*moved.URL = *r.URL
	moved.URL.Path, moved.URL.RawPath = path, ""
	return &moved
}
