// Package senderclient calls an API that a [senderauth] guard protects. It depends on
// the standard library only.
//
//	client, err := senderclient.New("https://api.example.com", senderclient.Config{})
//	res, err := client.Get("https://api.example.com/v1/contacts")
//	if err == nil {
//		err = senderclient.CheckResponse(res)
//	}
//
// The client adds x-sender-id and x-api-key to each request, here from the environment
// variables SENT_SENDER_ID and SENT_API_KEY.
//
// # Where the key goes
//
// The two headers go to one origin: the scheme, host and port that [New] was given. A
// request to any other origin goes out without them, even if its caller has set them. A
// redirect to another origin loses them for good: the requests that follow it carry no
// key either, even if they lead back, because somebody else has chosen them. An origin
// must be https, or http on a loopback address.
//
// # What is retried
//
// A request can be retried only if its body can be sent again: it has none, or
// [http.Request.GetBody] is set, as [http.NewRequest] does for a bytes.Buffer,
// bytes.Reader or strings.Reader. Then the client retries
//
//   - a 429, because the server has not begun to work on the request;
//   - a 503, if the method is GET, HEAD, OPTIONS, TRACE, PUT or DELETE, or the request
//     has an Idempotency-Key.
//
// The client waits as long as Retry-After says, in seconds or as a date, and for at least
// a second. It retries nothing without a valid Retry-After, because the server does not
// say that a retry would help. It begins no wait above [Config.MaxWait], and none after
// [Config.MaxAttempts]. The caller then gets the response as it came, and [CheckResponse]
// makes an error of it.
//
// The client does not sleep until the deadline of the request's context, either. If a wait
// would not end before it, the caller immediately gets a 503 as it came, or a
// [*RateLimitError], which wraps [context.DeadlineExceeded], in place of a 429.
//
// [senderauth]: https://pkg.go.dev/github.com/senderauth/senderauth
package senderclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Config configures [New] and [NewTransport]. The zero value is ready to use.
type Config struct {
	_ [0]func()

	// Credentials returns the sender's ID and key for one attempt of a request, so that
	// a key can change while the program runs. Many goroutines call it at once, and ctx
	// is the request's: return values that are at hand. Its error ends the request. Nil
	// means the environment variables SENT_SENDER_ID and SENT_API_KEY, which are read
	// once. [Static] returns a function for credentials that you have.
	Credentials func(ctx context.Context) (senderID, apiKey string, err error)
	// Base sends the requests. Nil means [http.DefaultTransport]. A Base that logs
	// requests sees the key.
	Base http.RoundTripper
	// MaxAttempts is how often a request is sent at most. Zero means 4, and 1 means
	// that nothing is retried.
	MaxAttempts int
	// MaxWait is the longest wait before an attempt. Zero means 1 minute. A response
	// that asks for more is returned immediately.
	MaxWait time.Duration
	// Pace returns the names of the limits that a request is charged, as the API
	// documents them, such as "default". If one of them is empty, by the RateLimit and
	// RateLimit-Policy fields of earlier responses, the Transport waits before it sends
	// the request. If the wait would exceed MaxWait, or not end before the context's
	// deadline, it returns a [*RateLimitError] and sends nothing. Nil means that no
	// request waits before its first attempt.
	//
	// The Transport does not see other clients of the same sender, so a 429 is still
	// possible. It remembers a limit for as long as it lives, so the names must be few.
	// Many goroutines call Pace at once.
	Pace func(*http.Request) []string
}

// New returns a client for the API at origin, such as https://api.example.com. It
// reports every mistake at once, and no message holds a key. These are mistakes:
//
//   - an origin that is not https or on a loopback address, or has more than scheme, host
//     and port;
//   - an environment variable that is missing or malformed, if Config.Credentials is nil;
//   - a negative number in cfg.
//
// The client has no Timeout. Set one, or use contexts with a deadline. Waits count
// towards both.
func New(origin string, cfg Config) (*http.Client, error) {
	t, err := NewTransport(origin, cfg)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t}, nil
}

// A Transport is an [http.RoundTripper] that adds the credentials of a sender to the
// requests to one origin, and retries them when the server asks for it. Make one with
// [NewTransport] and share it. It is safe for concurrent use.
type Transport struct {
	origin      origin
	credentials func(context.Context) (string, string, error)
	base        http.RoundTripper
	maxAttempts int
	maxWait     time.Duration
	pacer       *pacer // nil: no pacing
	headers     headers
}

// NewTransport returns a Transport for a client of your own. It reports the same
// mistakes as [New].
func NewTransport(origin string, cfg Config) (*Transport, error) {
	o, err := parseOrigin(origin)
	errs := []error{err}
	if cfg.Credentials == nil {
		cfg.Credentials, err = environment()
		errs = append(errs, err)
	}
	if cfg.MaxAttempts < 0 {
		errs = append(errs, fmt.Errorf("senderclient: Config.MaxAttempts: %d is negative", cfg.MaxAttempts))
	}
	if cfg.MaxWait < 0 {
		errs = append(errs, fmt.Errorf("senderclient: Config.MaxWait: %v is negative", cfg.MaxWait))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	t := &Transport{
		origin:      o,
		credentials: cfg.Credentials,
		base:        cfg.Base,
		maxAttempts: cmp.Or(cfg.MaxAttempts, 4),
		maxWait:     cmp.Or(cfg.MaxWait, time.Minute),
	}
	if t.base == nil {
		t.base = http.DefaultTransport
	}
	_, t.headers.shared = t.base.(*http.Transport)
	if cfg.Pace != nil {
		t.pacer = newPacer(cfg.Pace, t.maxWait)
	}
	return t, nil
}

// CloseIdleConnections closes the idle connections of Config.Base, if it can.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
