package demo

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/google/uuid"
	"github.com/senderauth/senderauth"
)

// credentials are the one pair that the program knows.
type credentials struct {
	senderauth.Credentials
	made bool // here and now: the user has not seen them yet
}

// credentialsFrom reads the pair from the environment, or makes one where
// neither variable is set.
func credentialsFrom(getenv func(string) string) (credentials, error) {
	const senderVar, keyVar = "SENT_SENDER_ID", "SENT_API_KEY"
	pair := senderauth.Credentials{SenderID: getenv(senderVar), APIKey: getenv(keyVar)}
	if pair.SenderID == "" && pair.APIKey == "" {
		// Version 4, from crypto/rand.
		return credentials{senderauth.Credentials{SenderID: uuid.NewString(), APIKey: uuid.NewString()}, true}, nil
	}
	var errs []error
	switch {
	case pair.SenderID == "":
		errs = append(errs, fmt.Errorf("%s is not set, and %s is: set both or neither", senderVar, keyVar))
	case !isUUID(pair.SenderID):
		errs = append(errs, fmt.Errorf("%s is %q, and not a UUID of 36 characters", senderVar, pair.SenderID))
	}
	switch {
	case pair.APIKey == "":
		errs = append(errs, fmt.Errorf("%s is not set, and %s is: set both or neither", keyVar, senderVar))
	case !isUUID(pair.APIKey):
		errs = append(errs, fmt.Errorf("%s is not a UUID of 36 characters", keyVar))
	}
	return credentials{Credentials: pair}, errors.Join(errs...)
}

// isUUID reports whether a guard would let s through. The other forms that
// uuid.Parse reads are shorter or longer.
func isUUID(s string) bool {
	u, err := uuid.Parse(s)
	return err == nil && len(s) == 36 && u != uuid.Nil && u != uuid.Max
}

// introduce writes a pair that was made to w: for the user's .env, and as a
// command that is served at addr. It is the only time that the key is shown.
func (c credentials) introduce(w io.Writer, addr net.Addr) {
	if !c.made {
		return
	}
	host, port, _ := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	fmt.Fprintf(w, "SENT_SENDER_ID=%s\nSENT_API_KEY=%s\n\n", c.SenderID, c.APIKey)
	fmt.Fprintf(w, "curl -i 'http://%s/v1/contacts' -H 'x-sender-id: %s' -H 'x-api-key: %s'\n", net.JoinHostPort(host, port), c.SenderID, c.APIKey)
}
