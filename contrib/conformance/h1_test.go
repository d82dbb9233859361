package conformance

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// An exchange is the bytes sent and received on a connection, and the response that
// they contain.
type exchange struct {
	sent, received bytes.Buffer

	status int // 0 if the stream was reset
	header http.Header
	body   []byte
	reset  string // the error code of an HTTP/2 RST_STREAM
}

// patience bounds the whole exchange on a connection.
const patience = 20 * time.Second

func (v *vector) exchange(addr string) (*exchange, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	x := &exchange{}
	if v.Protocol == "h2" {
		return x, x.h2(conn, v)
	}
	return x, x.h1(conn.(*net.TCPConn), v)
}

// wire returns the request of an HTTP/1 vector as it is sent.
func (v *vector) wire() string {
	if v.RawRequest != "" {
		return v.RawRequest
	}
	version := v.HTTPVersion
	if version == "" {
		version = "HTTP/1.1"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\r\n", v.Method, v.Path, version)
	if !v.has("Host") && (v.Host == nil || *v.Host) {
		b.WriteString("Host: localhost\r\n")
	}
	if !v.has("Connection") {
		b.WriteString("Connection: close\r\n")
	}
	body := v.Body
	if body == unsentBody {
		body = ""
	} else if body != "" && !v.has("Content-Length") && !v.has("Transfer-Encoding") {
		b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\n")
	}
	for _, h := range v.Headers {
		b.WriteString(h.name + h.separator + h.value + "\r\n")
	}
	b.WriteString("\r\n" + body)
	return b.String()
}

// h1 sends the vector, reads the responses that must follow, keeps the one to check,
// and makes sure that nothing comes after them. It half-closes the connection only
// then, because net/http would cancel a request at the end of its input.
func (x *exchange) h1(conn *net.TCPConn, v *vector) error {
	x.sent.WriteString(v.wire())
	if _, err := conn.Write(x.sent.Bytes()); err != nil {
		return err
	}
	in := bufio.NewReader(io.TeeReader(conn, &x.received))
	checked := max(1, v.Precondition.CheckResponse)
	for n := 1; n <= max(checked, v.Precondition.ResponsesExact); n++ {
		resp, err := http.ReadResponse(in, &http.Request{Method: v.Method})
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if n != checked {
			continue
		}
		x.status, x.header, x.body = resp.StatusCode, resp.Header, body
		if len(resp.TransferEncoding) > 0 {
			x.header["Transfer-Encoding"] = resp.TransferEncoding
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	rest, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return errors.New("there is more data after the response")
	}
	return nil
}
