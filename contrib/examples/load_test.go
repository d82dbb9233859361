package examples_test

import (
	"io"
	"net/http"
)

// A client reuses its connections, as busy callers do.
type client struct{ *http.Client }

func newClient() client {
	return client{&http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: patience}}
}

// get requests the contacts and returns the status.
func (c client) get(p *process, header []string) (status int, err error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+p.addr+"/v1/contacts", nil)
	if err != nil {
		return 0, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}
