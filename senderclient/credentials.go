package senderclient

import (
	"context"
	"errors"
	"fmt"
	"os"
)

const maxLength = 512 // of a sender's ID and of a key

// Static returns a function for [Config].Credentials that always returns these
// credentials. It returns an error if the sender's ID or the key is not 1 to 512 visible
// ASCII characters. The messages hold neither, because one may be in the place of the
// other.
func Static(senderID, apiKey string) (func(context.Context) (string, string, error), error) {
	if err := errors.Join(check("Static: the sender's ID", senderID), check("Static: the key", apiKey)); err != nil {
		return nil, err
	}
	return fixed(senderID, apiKey), nil
}

func fixed(senderID, apiKey string) func(context.Context) (string, string, error) {
	return func(context.Context) (string, string, error) { return senderID, apiKey, nil }
}

// environment returns the credentials that the API's guide puts into the environment.
func environment() (func(context.Context) (string, string, error), error) {
	senderID, apiKey := os.Getenv("SENT_SENDER_ID"), os.Getenv("SENT_API_KEY")
	if err := errors.Join(check("SENT_SENDER_ID", senderID), check("SENT_API_KEY", apiKey)); err != nil {
		return nil, err
	}
	return fixed(senderID, apiKey), nil
}

// check refuses what no guard accepts, above all the line feed at the end of a file.
func check(name, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("senderclient: %s is empty", name)
	case len(value) > maxLength:
		return fmt.Errorf("senderclient: %s has %d characters, more than %d", name, len(value), maxLength)
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return fmt.Errorf("senderclient: %s: character %d is not visible ASCII", name, i+1)
		}
	}
	return nil
}
