package main

import (
	"fmt"
	"strings"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A rehearsal remembers what a dry run would have imported. Each of its transactions is
// rolled back, so that the next one does not find the keys.
type rehearsal struct {
	owners map[[32]byte]string // by SHA-256
	ids    map[string]bool     // that the lines name
}

func newRehearsal() *rehearsal {
	return &rehearsal{make(map[[32]byte]string), make(map[string]bool)}
}

// result returns what would have become of a key after the earlier ones.
func (r *rehearsal) result(k sqlkeys.ImportKey, alone sqlkeys.ImportResult) sqlkeys.ImportResult {
	if !alone.Created {
		return alone
	}
	owner, twice := r.owners[k.SHA256]
	switch {
	case twice && strings.EqualFold(owner, k.SenderID):
		return sqlkeys.ImportResult{}
	case twice:
		return sqlkeys.ImportResult{Err: fmt.Errorf("import: the key belongs to another sender: %w", sqlkeys.ErrDuplicate)}
	case r.ids[k.ID]:
		return sqlkeys.ImportResult{Err: fmt.Errorf("key %s: %w", k.ID, sqlkeys.ErrDuplicate)}
	}
	r.owners[k.SHA256] = k.SenderID
	if k.ID != "" {
		r.ids[k.ID] = true
	}
	return alone
}
