package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"
	"time"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// revokeTimeout bounds the revocation of a key that could not be printed. It
// also runs after Ctrl-C.
const revokeTimeout = 10 * time.Second

// errNotPrinted reports a key that was made and withdrawn.
var errNotPrinted = errors.New("cannot print the new key")

// deliver makes a key and prints it, or writes it to the file of -out. It
// revokes a key that it cannot print, because nobody knows its secret.
func (a *app) deliver(ctx context.Context, s *sqlkeys.Store, issue func(context.Context) (sqlkeys.Issued, error)) error {
	file, err := a.createOut()
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // writing to a closed pipe returns an error
	// Ctrl-C during the commit would leave a key that nobody knows.
	issued, err := issue(context.WithoutCancel(ctx))
	if err != nil {
		file.discard()
		return err
	}
	if err := a.printPair(file, issued); err != nil {
		file.discard()
		return fmt.Errorf("%w: %w: %s", errNotPrinted, err, withdraw(ctx, s, issued.Key.ID))
	}
	if !a.json {
		a.printNote(issued.Key)
	}
	a.warnDisabled(ctx, s, issued.Key.SenderID)
	return nil
}

// warnDisabled says why a new key is refused. A sender that cannot be read
// gets no warning: the key is made.
func (a *app) warnDisabled(ctx context.Context, s *sqlkeys.Store, senderID string) {
	if x, err := s.Sender(ctx, senderID); (err == nil || errors.Is(err, sqlkeys.ErrUnreadable)) && !x.DisabledAt.IsZero() {
		fmt.Fprintf(a.err, "Sender %s is disabled: its keys are refused until you enable it.\n", senderID)
	}
}

// withdraw revokes a key and says what has become of it.
func withdraw(ctx context.Context, s *sqlkeys.Store, id string) string {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	if err := s.Revoke(ctx, id); err != nil {
		return fmt.Sprintf("%s is active and could not be revoked: %v", id, err)
	}
	return id + " is revoked"
}

// printPair prints the secret, which cannot be shown again, or writes it to
// the file.
func (a *app) printPair(file outFile, i sqlkeys.Issued) error {
	k := keyJSON(i.Key, nil).(jsonKey)
	switch {
	case file.File != nil && a.json:
		return errors.Join(file.write(i), a.printJSON(k))
	case file.File != nil:
		return file.write(i)
	case a.json:
		k.APIKey = i.Credentials.APIKey
		return a.printJSON(k)
	}
	return writePair(a.out, i)
}

// writePair writes the lines of a .env file.
func writePair(w io.Writer, i sqlkeys.Issued) error {
	_, err := fmt.Fprintf(w, "SENT_SENDER_ID=%s\nSENT_API_KEY=%s\n", i.Credentials.SenderID, i.Credentials.APIKey)
	return err
}

// printNote tells a person which key was printed.
func (a *app) printNote(k sqlkeys.Key) {
	until := "does not expire"
	if !k.ExpiresAt.IsZero() {
		until = "expires " + when(k.ExpiresAt)
	}
	written := ""
	if a.outPath != "" {
		written = " is in " + a.outPath
	}
	fmt.Fprintf(a.err, "%s (%s, %s)%s. The key is not shown again.\n", k.ID, k.Environment, until, written)
}
