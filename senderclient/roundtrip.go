package senderclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// RoundTrip sends r, with the credentials if it goes to the origin, and sends it again
// as the package's documentation says. It does not change r. The Request of the response
// is r, so that the response does not hold the key.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if !t.origin.is(r.URL) || t.origin.leftBefore(r) {
		res, err := t.base.RoundTrip(withoutCredentials(r))
		return answer(r, res, err)
	}
	for attempt := 1; ; attempt++ {
		res, err := t.attempt(r, attempt > 1)
		if err != nil || !retryable(r, res) {
			return res, err
		}
		delay, told := retryAfter(res.Header, time.Now())
		if !told || delay > t.maxWait || attempt == t.maxAttempts {
			return res, nil
		}
		if !endsInTime(r.Context(), delay) {
			if res.StatusCode == http.StatusTooManyRequests {
				return nil, limitError(res, delay, context.DeadlineExceeded)
			}
			return res, nil
		}
		until := time.Now().Add(delay)
		discard(res)
		if err := sleep(r.Context(), time.Until(until)); err != nil {
			return nil, err
		}
	}
}

// answer makes r the request of a response.
func answer(r *http.Request, res *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	if res == nil {
		return nil, errors.New("senderclient: Config.Base returned neither a response nor an error")
	}
	res.Request = r
	return res, nil
}

// attempt sends a copy of r with the credentials, when it is r's turn.
func (t *Transport) attempt(r *http.Request, again bool) (*http.Response, error) {
	turn, err := t.pacer.wait(r)
	if err != nil {
		return nil, unsent(r, again, err)
	}
	out, err := t.authenticated(r, again)
	if err != nil {
		turn.giveBack()
		return nil, unsent(r, again, err)
	}
	res, err := t.base.RoundTrip(out)
	turn.end(res)
	return answer(r, res, err)
}

func (t *Transport) authenticated(r *http.Request, again bool) (*http.Request, error) {
	senderID, apiKey, err := t.credentials(r.Context())
	if err != nil {
		return nil, fmt.Errorf("senderclient: Config.Credentials: %w", err)
	}
	out := r.WithContext(r.Context())
	if out.Header, err = t.headers.with(r.Header, senderID, apiKey); err != nil {
		return nil, err
	}
	if again && r.GetBody != nil {
		if out.Body, err = r.GetBody(); err != nil {
			return nil, fmt.Errorf("senderclient: the body of the request cannot be sent again: %w", err)
		}
	}
	return out, nil
}

// unsent closes the body of a request that is not sent, which the first attempt would
// have done.
func unsent(r *http.Request, again bool, err error) error {
	if !again && r.Body != nil {
		r.Body.Close()
	}
	return err
}

// endsInTime reports whether a wait ends before the context's deadline.
func endsInTime(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return !ok || time.Until(deadline) > wait
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
