package conformance

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2 sends the vector frame by frame as stream 1 of an HTTP/2 connection with prior
// knowledge, because a client library would refuse to send most vectors. The exchange
// records it in the form of HTTP/1.
func (x *exchange) h2(conn net.Conn, v *vector) error {
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	f := http2.NewFramer(conn, conn)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		return err
	}

	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	headers := func(fields []field, end bool) error {
		block.Reset()
		for _, h := range fields {
			fmt.Fprintf(&x.sent, "%s: %s\r\n", h.name, h.value)
			enc.WriteField(hpack.HeaderField{Name: h.name, Value: h.value})
		}
		x.sent.WriteString("\r\n")
		return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
	}
	pseudo := []field{{name: ":method", value: v.Method}, {name: ":scheme", value: "http"}, {name: ":authority", value: "localhost"}, {name: ":path", value: v.Path}}
	regular := v.Headers
	if v.Body != "" && v.Body != unsentBody && !v.has("content-length") {
		regular = append([]field{{name: "content-length", value: strconv.Itoa(len(v.Body))}}, regular...)
	}
	fields := append(pseudo, regular...)
	if v.H2Pseudo == "after" {
		fields = append(regular[:len(regular):len(regular)], pseudo...)
	}
	if err := headers(fields, v.Body == ""); err != nil {
		return err
	}
	if v.Body != "" && v.Body != unsentBody {
		x.sent.WriteString(v.Body)
		if err := f.WriteData(1, len(v.H2Trailers) == 0, []byte(v.Body)); err != nil {
			return err
		}
		if len(v.H2Trailers) > 0 {
			if err := headers(v.H2Trailers, true); err != nil {
				return err
			}
		}
	}
	return x.readH2(f)
}

// readH2 reads frames until stream 1 ends.
func (x *exchange) readH2(f *http2.Framer) error {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				err = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = f.WritePing(true, frame.Data)
		case *http2.MetaHeadersFrame:
			x.header = http.Header{}
			for _, h := range frame.Fields {
				fmt.Fprintf(&x.received, "%s: %s\r\n", h.Name, h.Value)
				if h.Name == ":status" {
					x.status, err = strconv.Atoi(h.Value)
				} else if !strings.HasPrefix(h.Name, ":") {
					x.header.Add(h.Name, h.Value)
				}
			}
			x.received.WriteString("\r\n")
		case *http2.DataFrame:
			x.received.Write(frame.Data())
			x.body = append(x.body, frame.Data()...)
		case *http2.RSTStreamFrame:
			fmt.Fprintf(&x.received, "RST_STREAM %v\r\n", frame.ErrCode)
			x.reset = frame.ErrCode.String()
		case *http2.GoAwayFrame:
			fmt.Fprintf(&x.received, "GOAWAY %v\r\n", frame.ErrCode)
			err = fmt.Errorf("GOAWAY %v", frame.ErrCode)
		}
		if err != nil {
			return err
		}
		h := frame.Header()
		end := (h.Type == http2.FrameHeaders || h.Type == http2.FrameData) && h.Flags.Has(http2.FlagDataEndStream)
		if h.StreamID == 1 && (end || h.Type == http2.FrameRSTStream) {
			return nil
		}
	}
}
