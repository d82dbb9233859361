// Command minimal is the program at the top of the README: one sender, one key,
// one limit, in front of a file server.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/senderauth/senderauth"
)

func main() {
	id, key := os.Getenv("SENT_SENDER_ID"), os.Getenv("SENT_API_KEY")
	keys, err := senderauth.Static(senderauth.Credentials{SenderID: id, APIKey: key})
	if err != nil {
		log.Fatal(err)
	}
	limits := map[string]senderauth.Limit{"default": senderauth.PerMinute(200)}
	guard, err := senderauth.New(keys, senderauth.Config{Limits: limits})
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe("127.0.0.1:8080", guard.Wrap(http.FileServer(http.Dir(".")))))
}
