package senderauth_test

import (
	"fmt"

	"github.com/senderauth/senderauth"
)

// senderID and apiKey are the pair of the n-th sender. A key has digits that no
// sender ID has, so that a part of one is found wherever it is.
func senderID(n int) string { return fmt.Sprintf("7a1de7b4-3a0e-4d6e-9c2b-%012x", n) }
func apiKey(n int) string   { return fmt.Sprintf("0b9d3c1e-6f52-4c8a-b1d7-a5%010x", n) }

func pair(n int) senderauth.Credentials {
	return senderauth.Credentials{SenderID: senderID(n), APIKey: apiKey(n)}
}
