package keydesk

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A keyBody is a key as the JSON API shows it. Instants that do not apply are null.
type keyBody struct {
	ID          string              `json:"id"`
	SenderID    string              `json:"sender_id"`
	Name        string              `json:"name"`
	State       sqlkeys.State       `json:"state"`
	Environment sqlkeys.Environment `json:"environment"`
	Format      sqlkeys.Format      `json:"format"`
	Scopes      []string            `json:"scopes"`
	Networks    []netip.Prefix      `json:"networks"`
	Metadata    map[string]string   `json:"metadata"`
	CreatedAt   time.Time           `json:"created_at"`
	NotBefore   *time.Time          `json:"not_before"`
	ExpiresAt   *time.Time          `json:"expires_at"`
	GraceUntil  *time.Time          `json:"grace_until"`
	ReplacedBy  string              `json:"replaced_by,omitempty"`
	DisabledAt  *time.Time          `json:"disabled_at"`
	RevokedAt   *time.Time          `json:"revoked_at"`
	LastUsedAt  *time.Time          `json:"last_used_at"`
}

// An issuedBody is a new key with its secret, which is shown this once.
type issuedBody struct {
	Key    keyBody `json:"key"`
	APIKey string  `json:"api_key"`
}

func apiKeyOf(k sqlkeys.Key) keyBody {
	return keyBody{
		ID: k.ID, SenderID: k.SenderID, Name: k.Name, State: k.State, Environment: k.Environment, Format: k.Format,
		Scopes: list(k.Scopes), Networks: list(k.Networks), Metadata: dict(k.Metadata),
		CreatedAt: k.CreatedAt, NotBefore: orNull(k.NotBefore), ExpiresAt: orNull(k.ExpiresAt), GraceUntil: orNull(k.GraceUntil),
		ReplacedBy: k.ReplacedBy, DisabledAt: orNull(k.DisabledAt), RevokedAt: orNull(k.RevokedAt), LastUsedAt: orNull(k.LastUsedAt),
	}
}

// list and dict return what JSON writes as [] and {} if it is empty.
func list[T any](items []T) []T { return append([]T{}, items...) }

func dict[T any](m map[string]T) map[string]T {
	if m == nil {
		return map[string]T{}
	}
	return m
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// A pageBody is a page of a list, the newest first.
type pageBody[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"` // for ?after=; null on the last page
}

func pageOf[T, U any](page sqlkeys.Page[T], show func(T) U) answer {
	b := pageBody[U]{Items: make([]U, len(page.Items))}
	for i, item := range page.Items {
		b.Items[i] = show(item)
	}
	if page.Next != "" {
		b.Next = &page.Next
	}
	return answer{json: b}
}

func (d *desk) apiKeys(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	page, err := d.store.KeysPage(v.Context(), sqlkeys.KeyFilter{SenderID: about.Sender}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	return pageOf(page, apiKeyOf), nil
}

func (d *desk) apiKey(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	return answer{json: apiKeyOf(k)}, nil
}

// apiChange returns a route that changes a key, and shows it as it is afterwards.
func apiChange(change func(s *sqlkeys.Store, ctx context.Context, keyID string) error) func(*desk, visit) (answer, error) {
	return func(d *desk, v visit) (answer, error) {
		k, err := d.key(v)
		if err != nil {
			return answer{}, err
		}
		if err := change(d.store, v.Context(), k.ID); err != nil {
			return answer{}, d.conflict(v, k, err)
		}
		return d.apiKey(v)
	}
}

type usageBody struct {
	Start    time.Time                    `json:"start"`
	Requests map[senderauth.Outcome]int64 `json:"requests"`
}

// apiUsage shows the bars of a chart that have requests.
func (d *desk) apiUsage(v visit) (answer, error) {
	about, err := d.senderScope(v)
	if err != nil {
		return answer{}, err
	}
	p := periodOf(v)
	bars, err := d.bars(v, about, p, p.first(time.Now()))
	if err != nil {
		return answer{}, err
	}
	items := []usageBody{}
	for _, b := range bars {
		if len(b.Counts) > 0 {
			items = append(items, usageBody{b.Start, b.Counts})
		}
	}
	return answer{json: struct {
		SenderID string      `json:"sender_id"`
		Seconds  int64       `json:"seconds"`
		Items    []usageBody `json:"items"`
	}{about.Sender, int64(p.Bar / time.Second), items}}, nil
}

// senderScope is scope for what belongs to one sender.
func (d *desk) senderScope(v visit) (scope, error) {
	about, err := d.scope(v)
	if err == nil && about.Sender == "" {
		return scope{}, &refusal{status: http.StatusBadRequest, title: "Whose?", text: "Name a sender: ?sender=UUID."}
	}
	return about, err
}

type limitBody struct {
	Name       string `json:"name"`
	Limit      string `json:"limit"` // such as 200/1m0s:50
	Own        bool   `json:"own"`
	Remaining  *int   `json:"remaining"` // null if nobody knows, or nothing is counted
	ResetAfter *int64 `json:"reset_after_seconds"`
}

func (d *desk) apiLimits(v visit) (answer, error) {
	about, err := d.senderScope(v)
	if err != nil {
		return answer{}, err
	}
	x, err := d.store.Sender(v.Context(), about.Sender)
	if err != nil && !errors.Is(err, sqlkeys.ErrNotFound) && !errors.Is(err, sqlkeys.ErrUnreadable) {
		return answer{}, err
	}
	rows := d.limitsOf(x)
	err = d.fill(v.Context(), about.Sender, rows)
	if err != nil {
		d.log.WarnContext(v.Context(), "keydesk: the Limiter does not say what is left", "error", err)
	}
	items := make([]limitBody, len(rows))
	for i, row := range rows {
		items[i] = limitBody{Name: row.Name, Limit: sqlkeys.FormatLimit(row.Limit), Own: row.Own}
		if d.limiter != nil && err == nil && row.Bucket {
			reset := int64((row.ResetAfter + time.Second - 1) / time.Second)
			items[i].Remaining, items[i].ResetAfter = &rows[i].Remaining, &reset
		}
	}
	return answer{json: struct {
		SenderID string      `json:"sender_id"`
		Items    []limitBody `json:"items"`
	}{about.Sender, items}}, nil
}

type auditBody struct {
	ID       int64             `json:"id"`
	At       time.Time         `json:"at"`
	Actor    string            `json:"actor"`
	Action   string            `json:"action"`
	SenderID string            `json:"sender_id"`
	KeyID    string            `json:"key_id,omitempty"`
	Detail   map[string]string `json:"detail"`
}

func (d *desk) apiAudit(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	page, err := d.store.AuditPage(v.Context(), sqlkeys.AuditFilter{SenderID: about.Sender, KeyID: about.Key}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	return pageOf(page, func(e sqlkeys.AuditEntry) auditBody {
		return auditBody{e.ID, e.At, e.Actor, e.Action, e.SenderID, e.KeyID, dict(e.Detail)}
	}), nil
}

type senderBody struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Limits     map[string]string `json:"limits"` // such as 200/1m0s:50
	Metadata   map[string]string `json:"metadata"`
	CreatedAt  time.Time         `json:"created_at"`
	DisabledAt *time.Time        `json:"disabled_at"`
}

func apiSenderOf(x sqlkeys.Sender) senderBody {
	limits := make(map[string]string, len(x.Limits))
	for name, l := range x.Limits {
		limits[name] = sqlkeys.FormatLimit(l)
	}
	return senderBody{x.ID, x.Name, limits, dict(x.Metadata), x.CreatedAt, orNull(x.DisabledAt)}
}

func (d *desk) apiSenders(v visit) (answer, error) {
	page, err := d.store.SendersPage(v.Context(), sqlkeys.SenderFilter{}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	return pageOf(page, apiSenderOf), nil
}

func (d *desk) apiSender(v visit) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	return answer{json: apiSenderOf(x)}, nil
}

func (d *desk) apiCreateSender(v visit) (answer, error) {
	var b struct {
		ID       string            `json:"id"`
		Name     string            `json:"name"`
		Limits   map[string]string `json:"limits"`
		Metadata map[string]string `json:"metadata"`
	}
	if err := readJSON(v.Request, &b); err != nil {
		return answer{}, err
	}
	if b.ID == "" {
		b.ID = newUUID()
	}
	f := newForm(url.Values{"id": {b.ID}, "name": {b.Name}})
	f.setPairs("limits", b.Limits)
	f.setPairs("metadata", b.Metadata)
	n := sqlkeys.NewSender{ID: f.senderID("id"), Name: f.name("name"), Limits: f.plan("limits"), Metadata: f.metadata("metadata")}
	if err := f.wrong(nil); err != nil {
		return answer{}, err
	}
	x, err := d.store.CreateSender(v.Context(), n)
	switch {
	case errors.Is(err, sqlkeys.ErrDuplicate):
		return answer{}, &refusal{status: http.StatusConflict, title: "Nothing was changed", text: "There is a sender with that ID already."}
	case errors.Is(err, sqlkeys.ErrInvalid):
		return answer{}, &wrongFields{map[string]string{"metadata": "The store refuses these values: together they may take 16 KiB."}}
	case err != nil:
		return answer{}, err
	}
	return answer{status: http.StatusCreated, json: apiSenderOf(x)}, nil
}

// setPairs sets a field that the page reads as lines of NAME=VALUE.
func (f *form) setPairs(field string, m map[string]string) {
	var text strings.Builder
	for name, value := range m {
		if strings.TrimSpace(name) != name || strings.TrimSpace(value) != value || strings.Contains(name, "=") || strings.ContainsAny(name+value, "\r\n") {
			f.fail(field, "A name or a value has a line break, or spaces around it, or a name has an equals sign.")
		}
		text.WriteString(name + "=" + value + "\n")
	}
	f.values.Set(field, text.String())
}

func (d *desk) apiPlan(v visit) (answer, error) {
	x, err := d.sender(v, v.PathValue("sender"))
	if err != nil {
		return answer{}, err
	}
	var b struct {
		Limits map[string]string `json:"limits"`
	}
	if err := readJSON(v.Request, &b); err != nil {
		return answer{}, err
	}
	f := newForm(url.Values{})
	if b.Limits == nil {
		f.fail("limits", "Name the limits. An empty object means those of the service.")
	}
	f.setPairs("limits", b.Limits)
	limits := f.plan("limits")
	if err := f.wrong(nil); err != nil {
		return answer{}, err
	}
	if err := d.store.SetLimits(v.Context(), x.ID, limits); err != nil {
		return answer{}, err
	}
	return d.apiSender(v)
}

// apiChangeSender returns a route that changes a sender, and shows it as it is
// afterwards.
func apiChangeSender(change func(s *sqlkeys.Store, ctx context.Context, id string) error) func(*desk, visit) (answer, error) {
	return func(d *desk, v visit) (answer, error) {
		x, err := d.sender(v, v.PathValue("sender"))
		if err != nil {
			return answer{}, err
		}
		if err := change(d.store, v.Context(), x.ID); err != nil {
			return answer{}, err
		}
		return d.apiSender(v)
	}
}
