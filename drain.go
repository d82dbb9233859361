package senderauth

import (
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// The bounds within which drainBody reads the body of a refused request. A body
// that stays within them is read to its end in 64 seconds at most.
const (
	// drainBytes is as much as net/http itself reads of a body that a handler
	// has left, to keep the connection.
	drainBytes = 256 << 10
	// drainPause is the longest time without a byte. A body that is announced
	// and does not come delays the answer by it.
	drainPause = 500 * time.Millisecond
	// drainRate is the lowest average, in bytes a second, after the first
	// drainPause. It makes holding a connection cost bandwidth.
	drainRate = 4 << 10
)

// drainBody reads the body that a refused request is still sending, before the
// answer is written. A server that closes a connection while bytes arrive resets
// it, and the client, or the proxy in front of it, may lose the answer.
//
// Over HTTP/2, net/http resets the stream instead, without an error, and most
// clients keep the answer. Some do not: curl 7.88 loses it if the reset comes
// while it sends, even a short body. So the drain waits for drainPause in all,
// and costs no connection.
//
// Over HTTP/1, a body that is not at its end within the bounds costs the connection: the
// answer says Connection: close, and net/http goes on taking bytes for half a
// second after it. A client that waits for 100 Continue is not asked for its
// body, and its connection ends in the same way.
//
// Behind a writer that hides the connection's deadline nothing is read, because
// a body that never comes would delay the answer without end. The answer says
// Connection: close there, so that net/http does not wait for the body either.
func drainBody(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody || r.ProtoMajor != 1 && r.ProtoMajor != 2 {
		return
	}
	server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	u := drain{body: r.Body, control: http.NewResponseController(w), start: time.Now(), most: drainTime(server)}
	if r.ProtoMajor == 2 {
		u.most = min(u.most, drainPause)
	}
	if err := u.control.SetReadDeadline(u.start.Add(drainPause)); err != nil {
		if server != nil && r.ProtoMajor == 1 { // no recorder of a test
			closeGently(w)
		}
		return
	}
	if r.Header.Get("Expect") == "" { // or a Read would write 100 Continue
		io.CopyN(io.Discard, &u, drainBytes+1)
	}
	if r.ProtoMajor == 2 || u.atEnd(r.ContentLength) {
		// net/http has lifted the deadline to wait for the next request, or for
		// the client to go away: so does the drain.
		u.control.SetReadDeadline(time.Time{})
		return
	}
	// The last deadline stays, for the rest that net/http reads after the
	// answer.
	closeGently(w)
}

// drainTime is the time that a drain may take: all that the bounds allow, but
// no longer than the server gives any request. Of WriteTimeout half is left for
// the answer.
func drainTime(server *http.Server) time.Duration {
	t := drainPause + drainBytes*time.Second/drainRate
	if server != nil && server.ReadTimeout > 0 {
		t = min(t, server.ReadTimeout)
	}
	if server != nil && server.WriteTimeout > 0 {
		t = min(t, server.WriteTimeout/2)
	}
	return t
}

// A drain is an io.Reader of a body that fails when the body is too slow.
type drain struct {
	body    io.Reader
	control *http.ResponseController
	start   time.Time
	most    time.Duration // that it may take
	n       int64         // bytes read
	err     error         // of the last Read of body
}

func (u *drain) Read(p []byte) (int, error) {
	elapsed := time.Since(u.start)
	ends := min(elapsed+drainPause, drainPause+time.Duration(u.n)*time.Second/drainRate, u.most)
	if elapsed > ends { // a body of another layer may know no deadline
		return 0, os.ErrDeadlineExceeded
	}
	if err := u.control.SetReadDeadline(u.start.Add(ends)); err != nil {
		return 0, err
	}
	var n int
	n, u.err = u.body.Read(p)
	u.n += int64(n)
	return n, u.err
}

// atEnd reports whether all of the body has been read, by the drain or before
// it. One that an outer layer ends before the length that the client announced
// may not be at its end on the connection.
func (u *drain) atEnd(length int64) bool {
	switch u.err {
	case io.EOF:
		return u.n == 0 || u.n >= length
	case http.ErrBodyReadAfterClose:
		return true
	}
	return false
}

// closeGently has net/http close the connection after the answer. It does so at
// once, whatever the client is sending, unless it is told that the body is too
// large: then it waits for half a second. http.MaxBytesReader tells it.
func closeGently(w http.ResponseWriter) {
	w.Header()["Connection"] = []string{"close"}
	for {
		u, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			break
		}
		w = u.Unwrap()
	}
	http.MaxBytesReader(w, io.NopCloser(strings.NewReader("x")), 0).Read(make([]byte, 1))
}
