package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) keyEdit() *cobra.Command {
	var name, expires string
	var set, unset []string
	var edit *cobra.Command
	edit = a.changeKey("edit KEYID", "Change the name, the expiry or the metadata of a key", func(ctx context.Context, s *sqlkeys.Store, id string) (err error) {
		e := sqlkeys.KeyEdit{Name: given(edit, "name", name), UnsetMetadata: unset}
		if e.SetMetadata, err = parsePairs("meta", set); err != nil {
			return err
		}
		if e.ExpiresAt, err = parseExpiry(expires); err != nil {
			return err
		}
		return s.EditKey(ctx, id, e)
	})
	edit.Flags().StringVar(&name, "name", "", "new `NAME` of the key, for people")
	edit.Flags().StringVar(&expires, "expires", "", "`TIME` at which the key ends, written as for issue, or never")
	metadataFlags(edit, &set, &unset)
	return edit
}

func (a *app) senderEdit() *cobra.Command {
	var name string
	var set, unset []string
	var edit *cobra.Command
	edit = a.changeSender("edit SENDER", "Change the name or the metadata of a sender", func(ctx context.Context, s *sqlkeys.Store, id string) (err error) {
		e := sqlkeys.SenderEdit{Name: given(edit, "name", name), UnsetMetadata: unset}
		if e.SetMetadata, err = parsePairs("meta", set); err != nil {
			return err
		}
		return s.EditSender(ctx, id, e)
	})
	edit.Flags().StringVar(&name, "name", "", "new `NAME` of the sender, for people")
	metadataFlags(edit, &set, &unset)
	return edit
}

func metadataFlags(cmd *cobra.Command, set, unset *[]string) {
	cmd.Flags().StringArrayVar(set, "meta", nil, "`NAME=VALUE` to add or replace; may be repeated")
	cmd.Flags().StringArrayVar(unset, "unset", nil, "`NAME` in the metadata to remove; may be repeated")
}

// given returns the value of a flag, or nil if the flag was not used.
func given(cmd *cobra.Command, flag, value string) *string {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	return &value
}

// parseExpiry reads a new expiry. It returns nil if none is given.
func parseExpiry(text string) (*time.Time, error) {
	if text == "never" {
		return new(time.Time), nil
	}
	at, err := parseFuture("expires", text)
	if err != nil || text == "" {
		return nil, err
	}
	return &at, nil
}

func (a *app) senderDelete() *cobra.Command {
	del := a.one("delete SENDER", "Delete a sender with its keys and their usage", func(ctx context.Context, s *sqlkeys.Store, id string) error {
		if !a.yes {
			question, err := aboutToDelete(ctx, s, id)
			if err != nil {
				return err
			}
			if err := a.confirm(ctx, question); err != nil {
				return err
			}
		}
		if err := s.DeleteSender(ctx, id); err != nil || !a.json {
			return err
		}
		return a.printJSON(map[string]bool{"deleted": true})
	})
	del.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
	return del
}

// aboutToDelete asks for a confirmation that shows what is at stake.
func aboutToDelete(ctx context.Context, s *sqlkeys.Store, id string) (string, error) {
	x, err := s.Sender(ctx, id)
	if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return "", err
	}
	page, err := s.KeysPage(ctx, sqlkeys.KeyFilter{SenderID: id}, sqlkeys.Paging{Limit: 1000})
	if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return "", err
	}
	keys := fmt.Sprintf("its keys (%d)", len(page.Items))
	if page.Next != "" {
		keys = "its keys (more than 1000)"
	}
	return fmt.Sprintf("Delete sender %s %q, %s and their usage for good?", x.ID, x.Name, keys), nil
}
