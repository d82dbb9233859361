package keydesk

import (
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// apiPrefix is the path of the JSON API, which does what the pages do, under the same
// authorization and with the same checks.
const apiPrefix = "/api/v1"

//go:embed openapi.json
var openAPI []byte

// apiRoutes lists the JSON API. openapi.json describes it.
func apiRoutes() []route {
	routes := []route{
		{method: "GET", path: "/openapi.json", serve: (*desk).apiDescription},
		{method: "GET", path: "/keys", serve: (*desk).apiKeys},
		{method: "POST", path: "/keys", serve: (*desk).apiGenerate, changes: true},
		{method: "GET", path: "/keys/{key}", serve: (*desk).apiKey},
		{method: "POST", path: "/keys/{key}/rotate", serve: (*desk).apiRotate, changes: true},
		{method: "PUT", path: "/keys/{key}/access", serve: (*desk).apiAccess, changes: true},
		{method: "POST", path: "/keys/{key}/disable", serve: apiChange((*sqlkeys.Store).Disable), changes: true},
		{method: "POST", path: "/keys/{key}/enable", serve: apiChange((*sqlkeys.Store).Enable), changes: true},
		{method: "POST", path: "/keys/{key}/revoke", serve: apiChange((*sqlkeys.Store).Revoke), changes: true},
		{method: "GET", path: "/usage", serve: (*desk).apiUsage},
		{method: "GET", path: "/limits", serve: (*desk).apiLimits},
		{method: "GET", path: "/audit", serve: (*desk).apiAudit},

		{method: "GET", path: "/senders", serve: (*desk).apiSenders, operators: true},
		{method: "POST", path: "/senders", serve: (*desk).apiCreateSender, changes: true, operators: true},
		{method: "GET", path: "/senders/{sender}", serve: (*desk).apiSender, operators: true},
		{method: "PUT", path: "/senders/{sender}/limits", serve: (*desk).apiPlan, changes: true, operators: true},
		{method: "POST", path: "/senders/{sender}/disable", serve: apiChangeSender((*sqlkeys.Store).DisableSender), changes: true, operators: true},
		{method: "POST", path: "/senders/{sender}/enable", serve: apiChangeSender((*sqlkeys.Store).EnableSender), changes: true, operators: true},
	}
	for i := range routes {
		routes[i].path = apiPrefix + routes[i].path
		routes[i].json = true
	}
	return routes
}

// isAPI reports whether a path inside of the desk belongs to the JSON API.
func isAPI(path string) bool { return strings.HasPrefix(path, apiPrefix+"/") }

// problemOf returns the answer of the JSON API for an error.
func problemOf(err error) *senderauth.Problem {
	e := explain(err)
	p := &senderauth.Problem{Status: e.status, Detail: e.text, Challenge: `Session realm="keys"`, Err: err}
	if e.status >= 500 {
		p.RetryAfter = 5 * time.Second
	}
	var wrong *wrongFields
	if errors.As(err, &wrong) {
		p.Extensions = map[string]any{"errors": wrong.fields}
	}
	return p
}

// wrongFields is a refusal of a JSON body, with what is wrong by the name of the field.
type wrongFields struct{ fields map[string]string }

func (*wrongFields) Error() string { return "keydesk: some fields are wrong" }

// wrong returns the mistakes of a form under the names that the JSON body has for them.
func (f *form) wrong(names map[string]string) error {
	if !f.Failed() {
		return nil
	}
	fields := make(map[string]string, len(f.errs))
	for name, text := range f.errs {
		if other := names[name]; other != "" {
			name = other
		}
		fields[name] = text
	}
	return &wrongFields{fields}
}

// readJSON reads the body of a request, one JSON object of known members.
func readJSON(r *http.Request, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return &refusal{status: http.StatusUnsupportedMediaType, title: "Not JSON", text: "Send the body with Content-Type: application/json."}
	}
	decoder := json.NewDecoder(http.MaxBytesReader(nil, r.Body, maxForm))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&into) // null makes into nil
	if err == nil && into != nil {
		if _, err = decoder.Token(); err == io.EOF {
			return nil
		}
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &refusal{status: http.StatusRequestEntityTooLarge, title: "Too large", text: "The body is larger than 64 KiB. Nothing was changed."}
	}
	return &refusal{status: http.StatusBadRequest, title: "Not JSON", text: "The body is not one JSON object with the members of this request. Nothing was changed."}
}

func (d *desk) apiDescription(visit) (answer, error) {
	return answer{json: json.RawMessage(openAPI)}, nil
}

// A newKeyBody asks for a key. Members that are left out have the defaults of the page.
type newKeyBody struct {
	SenderID    string     `json:"sender_id"`
	Name        string     `json:"name"`
	Environment *string    `json:"environment"`
	Format      *string    `json:"format"`
	ExpiresAt   *time.Time `json:"expires_at"`
	Scopes      scopesBody `json:"scopes"`
	Networks    []string   `json:"networks"`
}

// A scopesBody tells null, as which some clients write an empty list, from a member that
// is left out, which means everything.
type scopesBody struct {
	named  bool
	scopes []string // nil after null
}

func (b *scopesBody) UnmarshalJSON(text []byte) error {
	*b = scopesBody{named: true}
	return json.Unmarshal(text, &b.scopes)
}

// form returns the body as the page would have sent it.
func (b newKeyBody) form(token string) *form {
	f := newForm(url.Values{
		"sender": {b.SenderID}, "name": {b.Name}, "expires": {"never"}, "token": {token},
		"environment": {string(sqlkeys.Production)}, "format": {string(sqlkeys.FormatUUID)}, "scopes": {senderauth.AllScopes},
	})
	if b.Environment != nil {
		f.values.Set("environment", *b.Environment)
	}
	if b.Format != nil {
		f.values.Set("format", *b.Format)
	}
	switch {
	case b.Scopes.scopes != nil:
		f.setList("scopes", b.Scopes.scopes)
	case b.Scopes.named:
		f.values.Del("scopes")
	}
	f.setList("networks", b.Networks)
	return f
}

// setList sets a field that the page separates by spaces.
func (f *form) setList(field string, items []string) {
	for _, item := range items {
		if item == "" || strings.ContainsAny(item, " ,\t\r\n\v\f\u0085\u00a0") {
			f.fail(field, "An entry is empty, or has a space or a comma in it.")
		}
	}
	f.values.Set(field, strings.Join(items, " "))
}

// apiGenerate makes a key. A request with the same Idempotency-Key makes no second one.
func (d *desk) apiGenerate(v visit) (answer, error) {
	var b newKeyBody
	if err := readJSON(v.Request, &b); err != nil {
		return answer{}, err
	}
	token := rand.Text()
	if header := v.Header.Values("Idempotency-Key"); len(header) > 0 {
		if len(header) > 1 || header[0] == "" || len(header[0]) > 255 {
			return answer{}, &refusal{status: http.StatusBadRequest, title: "Bad request", text: "Idempotency-Key has more than one value, or not 1 to 255 characters."}
		}
		token = "api-" + keyID(v.actor.SenderID, header[0]) + "------"
	}
	f := b.form(token)
	now := time.Now()
	n := f.newKey(v.actor, now)
	if b.ExpiresAt != nil {
		n.ExpiresAt = *b.ExpiresAt
		f.future("expires", n.ExpiresAt, now)
	}
	if err := f.wrong(map[string]string{"sender": "sender_id", "expires": "expires_at"}); err != nil {
		return answer{}, err
	}
	issued, err := d.store.Issue(v.Context(), n)
	switch {
	case errors.Is(err, sqlkeys.ErrDuplicate):
		return answer{}, &refusal{status: http.StatusConflict, title: "Already generated",
			text: "A request with this Idempotency-Key has made " + n.ID + " already, and a key is shown only once."}
	case errors.Is(err, sqlkeys.ErrNotFound):
		return answer{}, &refusal{status: http.StatusConflict, title: "No such sender", text: "There is no sender with that ID."}
	case errors.Is(err, sqlkeys.ErrInvalid):
		return answer{}, &wrongFields{map[string]string{"expires_at": "The key store refuses these values."}}
	case err != nil:
		return answer{}, err
	}
	return answer{status: http.StatusCreated, json: issuedBody{apiKeyOf(issued.Key), issued.Credentials.APIKey}}, nil
}

// future checks that an instant is in the future, and one that both databases can keep.
func (f *form) future(field string, t, now time.Time) {
	switch {
	case !t.After(now):
		f.fail(field, "The instant is not in the future.")
	case t.UTC().Year() > 9999:
		f.fail(field, "The instant is after the year 9999.")
	}
}

func (d *desk) apiRotate(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	var b struct {
		GraceSeconds int64      `json:"grace_seconds"`
		ExpiresAt    *time.Time `json:"expires_at"`
	}
	if err := readJSON(v.Request, &b); err != nil {
		return answer{}, err
	}
	if !actionsOn(k).Rotate {
		return answer{}, d.conflict(v, k, nil)
	}
	f, now := newForm(url.Values{}), time.Now()
	var r sqlkeys.Rotation
	if b.GraceSeconds < 0 || b.GraceSeconds > int64(lifetimes["30d"]/time.Second) {
		f.fail("grace_seconds", "The grace period is not between 0 and 30 days.")
	} else {
		r.Grace = time.Duration(b.GraceSeconds) * time.Second
		f.withinLife("grace_seconds", r.Grace, k, now)
	}
	if b.ExpiresAt != nil {
		r.ExpiresAt = *b.ExpiresAt
		f.future("expires_at", r.ExpiresAt, now)
	}
	if err := f.wrong(nil); err != nil {
		return answer{}, err
	}
	issued, err := d.store.Rotate(v.Context(), k.ID, r)
	if err != nil {
		return answer{}, d.conflict(v, k, err)
	}
	return answer{status: http.StatusCreated, json: issuedBody{apiKeyOf(issued.Key), issued.Credentials.APIKey}}, nil
}

func (d *desk) apiAccess(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	var b struct {
		Scopes   *[]string `json:"scopes"`
		Networks *[]string `json:"networks"`
	}
	if err := readJSON(v.Request, &b); err != nil {
		return answer{}, err
	}
	if hasEnded(k.State) {
		return answer{}, d.conflict(v, k, nil)
	}
	f := newForm(url.Values{})
	if b.Scopes != nil {
		f.setList("scopes", *b.Scopes)
	}
	if b.Networks != nil {
		f.setList("networks", *b.Networks)
	} else {
		f.fail("networks", "Name the networks. An empty list means every address.")
	}
	scopes, networks := f.scopes("scopes"), f.networks("networks")
	if err := f.wrong(nil); err != nil {
		return answer{}, err
	}
	if err := d.store.SetScopes(v.Context(), k.ID, scopes); err != nil {
		return answer{}, d.conflict(v, k, err)
	}
	if err := d.store.SetNetworks(v.Context(), k.ID, networks); err != nil {
		return answer{}, d.conflict(v, k, err)
	}
	return d.apiKey(v)
}
