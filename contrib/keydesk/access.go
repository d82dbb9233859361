package keydesk

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type accessPage struct {
	Key  sqlkeys.Key
	Form *form
}

// askAccess asks what a key is called, what it may do, and from where.
func (d *desk) askAccess(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if hasEnded(k.State) {
		return answer{}, d.conflict(v, k, nil)
	}
	return showAccess(k, newForm(url.Values{
		"name":     {k.Name},
		"scopes":   {strings.Join(k.Scopes, " ")},
		"networks": {networksText(k.Networks)},
		"before":   {accessText(k)},
	})), nil
}

func showAccess(k sqlkeys.Key, f *form) answer {
	a := answer{template: "access.html", title: "Edit " + title(k), tab: "keys", sender: k.SenderID, body: accessPage{k, f}}
	if f.Failed() {
		a.status = http.StatusUnprocessableEntity
	}
	return a
}

// setAccess changes what a key is called, what it may do, and from where, unless somebody else has changed
// it since the form was shown.
func (d *desk) setAccess(v visit) (answer, error) {
	k, err := d.key(v)
	if err != nil {
		return answer{}, err
	}
	if hasEnded(k.State) {
		return answer{}, d.conflict(v, k, nil)
	}
	f := newForm(v.PostForm)
	name, scopes, networks := f.name("name"), f.scopes("scopes"), f.networks("networks")
	switch {
	case f.Failed():
		return showAccess(k, f), nil
	case f.Value("before") != accessText(k):
		return answer{}, &refusal{status: http.StatusConflict, title: "Nothing was changed",
			text: "Somebody changed the key since you opened the form.", link: "keys/" + k.ID + "/access", label: "Open the form again"}
	}
	if !slices.Equal(scopes, k.Scopes) {
		if err := d.store.SetScopes(v.Context(), k.ID, scopes); err != nil {
			return answer{}, d.conflict(v, k, err)
		}
	}
	if !slices.Equal(networks, k.Networks) {
		if err := d.store.SetNetworks(v.Context(), k.ID, networks); err != nil {
			return answer{}, d.conflict(v, k, err)
		}
	}
	if name != k.Name {
		if err := d.store.EditKey(v.Context(), k.ID, sqlkeys.KeyEdit{Name: &name}); err != nil {
			return answer{}, d.conflict(v, k, err)
		}
	}
	return answer{location: "keys/" + k.ID + "?done=edited"}, nil
}

// accessText identifies what a form showed. Browsers change line breaks, which a key that
// was not named here may have in its name.
func accessText(k sqlkeys.Key) string {
	name := strings.NewReplacer("\r", `\r`, "\n", `\n`).Replace(k.Name)
	return strings.Join(k.Scopes, " ") + " from " + networksText(k.Networks) + " as " + name
}

func networksText(networks []netip.Prefix) string {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	return strings.Join(texts, " ")
}

// These are the bounds of [sqlkeys.NewKey].
const (
	maxScopes     = 64
	maxScopesText = 2048 // bytes, with a space between two scopes
	maxNetworks   = 64
)

// scopes reads scopes between spaces. An empty field means none, which is no nil.
func (f *form) scopes(field string) []string {
	scopes := strings.Fields(f.Value(field))
	switch {
	case !f.values.Has(field):
		f.fail(field, "Enter scopes, or * for everything.")
	case len(scopes) > maxScopes:
		f.fail(field, "There are %d scopes. At most %d are possible.", len(scopes), maxScopes)
	case len(strings.Join(scopes, " ")) > maxScopesText:
		f.fail(field, "The scopes have more than %d bytes.", maxScopesText)
	}
	for _, s := range scopes {
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			f.fail(field, "%s is not a scope: use letters, digits and signs such as orders:read, without quotes and backslashes.", fmt.Sprintf("%+q", s))
		}
	}
	return append([]string{}, scopes...)
}

// networks reads prefixes or addresses between spaces or commas. An empty field means
// every address.
func (f *form) networks(field string) []netip.Prefix {
	texts := strings.FieldsFunc(f.Value(field), func(r rune) bool { return strings.ContainsRune(" ,\t\r\n", r) })
	if len(texts) > maxNetworks {
		f.fail(field, "There are %d networks. At most %d are possible.", len(texts), maxNetworks)
	}
	var networks []netip.Prefix
	for _, s := range texts {
		n, err := sqlkeys.ParseNetwork(s)
		if err != nil {
			f.fail(field, "%s is not a network such as 10.0.0.0/8, whose last bits are zero, or an address.", fmt.Sprintf("%+q", s))
		}
		networks = append(networks, n)
	}
	return networks
}
