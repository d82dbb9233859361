package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// jsonKey is the JSON form of a key. A field without omitempty is null if it
// does not apply.
type jsonKey struct {
	SenderID    string            `json:"sender_id"`
	KeyID       string            `json:"key_id"`
	APIKey      string            `json:"api_key,omitempty"` // on issue and rotate only
	State       sqlkeys.State     `json:"state"`
	Name        string            `json:"name"`
	Environment string            `json:"environment"`
	Format      string            `json:"format"`
	Scopes      []string          `json:"scopes"`   // null if unreadable
	Networks    []netip.Prefix    `json:"networks"` // null if the key works from any address
	CreatedAt   *time.Time        `json:"created_at"`
	ExpiresAt   *time.Time        `json:"expires_at"`
	LastUsedAt  *time.Time        `json:"last_used_at"`
	NotBefore   *time.Time        `json:"not_before,omitempty"`
	GraceUntil  *time.Time        `json:"grace_until,omitempty"`
	ReplacedBy  string            `json:"replaced_by,omitempty"`
	DisabledAt  *time.Time        `json:"disabled_at,omitempty"`
	RevokedAt   *time.Time        `json:"revoked_at,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	Unreadable  string            `json:"unreadable,omitempty"`
}

// unreadableText says what cannot be read of a row. It is empty if all can.
func unreadableText(err error) string {
	if err == nil {
		return ""
	}
	return forPeople.Replace(err.Error())
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func keyJSON(k sqlkeys.Key, unreadable error) any {
	return jsonKey{
		SenderID:    k.SenderID,
		KeyID:       k.ID,
		State:       k.State,
		Name:        k.Name,
		Environment: string(k.Environment),
		Format:      string(k.Format),
		Scopes:      k.Scopes,
		Networks:    k.Networks,
		CreatedAt:   instant(k.CreatedAt),
		ExpiresAt:   instant(k.ExpiresAt),
		LastUsedAt:  instant(k.LastUsedAt),
		NotBefore:   instant(k.NotBefore),
		GraceUntil:  instant(k.GraceUntil),
		ReplacedBy:  k.ReplacedBy,
		DisabledAt:  instant(k.DisabledAt),
		RevokedAt:   instant(k.RevokedAt),
		Metadata:    k.Metadata,
		Unreadable:  unreadableText(unreadable),
	}
}

func keyRow(k sqlkeys.Key) []string {
	return []string{k.ID, k.SenderID, string(k.State), k.Name, string(k.Environment),
		when(k.CreatedAt), when(k.Ends()), when(k.LastUsedAt), scopesText(k.Scopes), networksText(k.Networks)}
}

func senderState(s sqlkeys.Sender) string {
	if s.DisabledAt.IsZero() {
		return "active"
	}
	return "disabled"
}

func senderJSON(s sqlkeys.Sender, unreadable error) any {
	limits := make(map[string]string, len(s.Limits))
	for name, l := range s.Limits {
		limits[name] = sqlkeys.FormatLimit(l)
	}
	return struct {
		SenderID   string            `json:"sender_id"`
		Name       string            `json:"name"`
		State      string            `json:"state"`
		Limits     map[string]string `json:"limits"`
		CreatedAt  *time.Time        `json:"created_at"`
		DisabledAt *time.Time        `json:"disabled_at,omitempty"`
		Metadata   map[string]string `json:"metadata,omitempty"`
		Unreadable string            `json:"unreadable,omitempty"`
	}{s.ID, s.Name, senderState(s), limits, instant(s.CreatedAt), instant(s.DisabledAt), s.Metadata, unreadableText(unreadable)}
}

func usageJSON(u sqlkeys.Usage, _ error) any {
	return struct {
		SenderID string             `json:"sender_id"`
		KeyID    string             `json:"key_id"`
		Hour     time.Time          `json:"hour"`
		Outcome  senderauth.Outcome `json:"outcome"`
		Requests int64              `json:"requests"`
	}{u.SenderID, u.KeyID, u.Hour, u.Outcome, u.Requests}
}

func auditJSON(e sqlkeys.AuditEntry, unreadable error) any {
	return struct {
		ID         int64             `json:"id"`
		At         time.Time         `json:"at"`
		Actor      string            `json:"actor"`
		Action     string            `json:"action"`
		SenderID   string            `json:"sender_id"`
		KeyID      string            `json:"key_id,omitempty"`
		Detail     map[string]string `json:"detail,omitempty"`
		Unreadable string            `json:"unreadable,omitempty"`
	}{e.ID, e.At, e.Actor, e.Action, e.SenderID, e.KeyID, e.Detail, unreadableText(unreadable)}
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a *app) printKey(k sqlkeys.Key, unreadable error) error {
	if a.json {
		return a.printJSON(keyJSON(k, unreadable))
	}
	return a.printFields([][2]string{
		{"key", k.ID}, {"sender", k.SenderID}, {"state", string(k.State)}, {"name", k.Name},
		{"environment", string(k.Environment)}, {"format", string(k.Format)}, {"scopes", scopesText(k.Scopes)}, {"networks", networksText(k.Networks)}, {"created", when(k.CreatedAt)},
		{"not before", when(k.NotBefore)}, {"expires", when(k.ExpiresAt)}, {"last used", when(k.LastUsedAt)},
		{"grace until", when(k.GraceUntil)}, {"replaced by", k.ReplacedBy}, {"disabled", when(k.DisabledAt)},
		{"revoked", when(k.RevokedAt)}, {"metadata", pairsText(k.Metadata)},
	})
}

func (a *app) printSender(x sqlkeys.Sender, unreadable error) error {
	if a.json {
		return a.printJSON(senderJSON(x, unreadable))
	}
	return a.printFields([][2]string{
		{"sender", x.ID}, {"name", x.Name}, {"state", senderState(x)}, {"limits", limitsText(x.Limits)}, {"created", when(x.CreatedAt)},
		{"disabled", when(x.DisabledAt)}, {"metadata", pairsText(x.Metadata)},
	})
}

// printFields prints names and values, one pair a line. It leaves out values
// that do not apply.
func (a *app) printFields(fields [][2]string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, f := range fields {
		if f[1] != "" && f[1] != "-" {
			fmt.Fprintf(w, "%s\t%s\n", f[0], printable(f[1]))
		}
	}
	return w.Flush()
}

// printable escapes what does not print, as Go does: control characters, which
// could steer a terminal, tabs, which would shift the columns, and marks that
// change the direction of text, which would reorder them.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
	}
	return b.String()
}

func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func limitsText(limits map[string]senderauth.Limit) string {
	m := make(map[string]string, len(limits))
	for name, l := range limits {
		m[name] = sqlkeys.FormatLimit(l)
	}
	return pairsText(m)
}

func pairsText(m map[string]string) string {
	if len(m) == 0 {
		return "-"
	}
	var b strings.Builder
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name + "=" + m[name])
	}
	return b.String()
}
