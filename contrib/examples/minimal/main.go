// Command minimal is the program at the top of the README: one sender, one key,
// one limit, in front of a file server.
package main

import (
	"errors"
	"log"
	"net/http"
	"os"

	"github.com/senderauth/senderauth"
)

func main() {
	keys, err1 := senderauth.Static(senderauth.Credentials{SenderID: os.Getenv("SENT_SENDER_ID"), APIKey: os.Getenv("SENT_API_KEY")})
	guard, err2 := senderauth.New(keys, senderauth.Config{Limits: map[string]senderauth.Limit{"default": senderauth.PerMinute(200)}})
	if err := errors.Join(err1, err2); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", guard.Wrap(http.FileServer(http.Dir(".")))))
}
