package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
	"github.com/senderauth/senderauth/internal/uuid"
)

// firstKey makes sure that the store has a key: the pair in the environment, or a new
// one if the store is empty. Several programs may call it at once.
func firstKey(ctx context.Context, store *sqlkeys.Store, log *slog.Logger, g greeting) error {
	pair, err := pairFrom(os.Getenv, store.CheckKey)
	if err != nil {
		return err
	}
	if pair.APIKey != "" {
		key, err := store.Adopt(ctx, pair)
		if err != nil {
			return fmt.Errorf("%s and %s: %w", senderVar, keyVar, err)
		}
		if key.State != sqlkeys.Active && key.State != sqlkeys.Retiring {
			log.Warn("the key of "+keyVar+" is refused", "key_id", key.ID, "state", string(key.State))
		}
		g.invite()
		return nil
	}
	issued, first, err := store.IssueFirst(ctx)
	if err != nil {
		return fmt.Errorf("-db: the first key: %w", err)
	}
	g.invite()
	if first {
		g.introduce(issued.Credentials)
		return nil
	}
	for sender, err := range store.Senders(ctx, sqlkeys.SenderFilter{}) {
		if err != nil {
			return fmt.Errorf("-db: %w", err)
		}
		g.welcome(sender.ID)
		break
	}
	return nil
}

const senderVar, keyVar = "SENT_SENDER_ID", "SENT_API_KEY"

// pairFrom reads the pair from the environment. The pair is empty if neither variable
// is set. No error contains the key.
func pairFrom(getenv func(string) string, checkKey func(string) bool) (senderauth.Credentials, error) {
	pair := senderauth.Credentials{SenderID: getenv(senderVar), APIKey: getenv(keyVar)}
	if pair.SenderID == "" && pair.APIKey == "" {
		return pair, nil
	}
	var errs []error
	_, isUUID := uuid.Canonical(pair.SenderID)
	switch {
	case pair.SenderID == "":
		errs = append(errs, fmt.Errorf("%s is not set, and %s is: set both or neither", senderVar, keyVar))
	case !isUUID:
		errs = append(errs, fmt.Errorf("%s is %q, and not a UUID of 36 characters", senderVar, pair.SenderID))
	}
	switch {
	case pair.APIKey == "":
		errs = append(errs, fmt.Errorf("%s is not set, and %s is: set both or neither", keyVar, senderVar))
	case !checkKey(pair.APIKey):
		errs = append(errs, fmt.Errorf("%s is neither a UUID of 36 characters nor a prefixed key", keyVar))
	}
	return pair, errors.Join(errs...)
}

// A greeting is what the program prints to standard output.
type greeting struct {
	io.Writer
	addr net.Addr
	db   string
	link string // opens the keys page; empty if there is none
}

// introduce prints a new pair, as lines for an .env file and as a command to try. The
// key is never shown again.
func (g greeting) introduce(c senderauth.Credentials) {
	fmt.Fprintf(g, "SENT_SENDER_ID=%s\nSENT_API_KEY=%s\n\n", c.SenderID, c.APIKey)
	fmt.Fprintf(g, "curl -i 'http://%s/v1/contacts' -H 'x-sender-id: %s' -H 'x-api-key: %s'\n", g.host(), c.SenderID, c.APIKey)
}

// host returns the host and port of the program, as other programs on this machine
// write them.
func (g greeting) host() string {
	host, port, _ := net.SplitHostPort(g.addr.String())
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// welcome prints how to get another key if the store already has one.
func (g greeting) welcome(senderID string) {
	fmt.Fprintf(g, "Another key: go -C contrib run ./sqlkeys/cmd/senderkeys key issue -sender %s -db %s\n", senderID, shellWord(g.db))
}

// shellWord returns the database as one word of a shell command that works in any
// directory. A URL is not shown, because it may hold a password.
func shellWord(db string) string {
	if !strings.HasPrefix(db, "file:") {
		if strings.Contains(db, "://") {
			return `"$SENDERAUTH_DB"`
		}
		if abs, err := filepath.Abs(db); err == nil {
			db = abs
		}
	}
	return "'" + strings.ReplaceAll(db, "'", `'\''`) + "'"
}
