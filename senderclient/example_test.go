package senderclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/senderclient"
)

// newServer returns an API with one sender, who may send three requests an hour.
func newServer() *httptest.Server {
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: senderID, APIKey: apiKey})
	must(err)
	guard, err := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{
		"default": {Requests: 3, Per: time.Hour, Burst: 3},
	}})
	must(err)
	return httptest.NewServer(guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "the contacts")
	})))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// The sender's ID and key are in the environment.
func ExampleNew() {
	server := newServer()
	defer server.Close()
	os.Setenv("SENT_SENDER_ID", senderID)
	os.Setenv("SENT_API_KEY", apiKey)

	client, err := senderclient.New(server.URL, senderclient.Config{})
	must(err)
	res, err := client.Get(server.URL + "/v1/contacts")
	must(err)
	defer res.Body.Close()
	must(senderclient.CheckResponse(res))
	body, err := io.ReadAll(res.Body)
	must(err)
	fmt.Printf("%s\n", body)
	// Output:
	// the contacts
}

// A client that has its own timeout, and a key that can change while it runs.
func ExampleNewTransport() {
	server := newServer()
	defer server.Close()
	vault := func() string { return apiKey } // the key of today

	transport, err := senderclient.NewTransport(server.URL, senderclient.Config{
		Credentials: func(context.Context) (string, string, error) { return senderID, vault(), nil },
		MaxWait:     10 * time.Second,
	})
	must(err)
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	res, err := client.Post(server.URL+"/v1/messages", "application/json", strings.NewReader(`{"to":"+15550100"}`))
	must(err)
	defer res.Body.Close()
	fmt.Println(res.StatusCode, senderclient.CheckResponse(res))
	// Output:
	// 200 <nil>
}

// Errors say which of the two headers is wrong, and how long to wait.
func ExampleCheckResponse() {
	server := newServer()
	defer server.Close()
	try := func(senderID, apiKey string) {
		credentials, err := senderclient.Static(senderID, apiKey)
		must(err)
		client, err := senderclient.New(server.URL, senderclient.Config{Credentials: credentials})
		must(err)
		res, err := client.Get(server.URL + "/v1/contacts")
		if err == nil {
			defer res.Body.Close()
			err = senderclient.CheckResponse(res)
		}
		var limit *senderclient.RateLimitError
		switch {
		case err == nil:
			fmt.Println("ok")
		case errors.Is(err, senderclient.ErrInvalidKey):
			fmt.Println("get another key:", err)
		case errors.As(err, &limit):
			fmt.Println("come back in", limit.Delay)
		default:
			fmt.Println(err)
		}
	}

	try(senderID, "5d0c7a52-93fe-4b06-a1c8-77e21fd3b604")
	try("acct_42", apiKey)
	for range 4 {
		try(senderID, apiKey)
	}
	// Output:
	// get another key: senderclient: 401 Unauthorized: Invalid API credentials!
	// senderclient: 401 Unauthorized: Invalid x-sender-id
	// ok
	// ok
	// ok
	// come back in 20m0s
}

// The client waits for tokens instead of spending attempts on refusals. A request that
// cannot wait so long is not sent.
func ExampleConfig_pace() {
	server := newServer()
	defer server.Close()
	credentials, err := senderclient.Static(senderID, apiKey)
	must(err)
	client, err := senderclient.New(server.URL, senderclient.Config{
		Credentials: credentials,
		Pace:        func(*http.Request) []string { return []string{"default"} },
		MaxWait:     time.Hour,
	})
	must(err)
	client.Timeout = time.Minute
	for range 4 {
		res, err := client.Get(server.URL)
		var limit *senderclient.RateLimitError
		if errors.As(err, &limit) {
			fmt.Println("not sent: come back in", limit.Delay.Round(time.Minute))
			continue
		}
		must(err)
		fmt.Println(res.StatusCode)
		must(res.Body.Close())
	}
	// Output:
	// 200
	// 200
	// 200
	// not sent: come back in 20m0s
}
