package keydesk

import (
	"maps"
	"slices"
	"strings"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type auditPage struct {
	scope
	Entries []auditRow
	older
}

type auditRow struct {
	sqlkeys.AuditEntry
	Does   string // what the action means
	Detail string
}

// showAudit shows changes, the newest first.
func (d *desk) showAudit(v visit) (answer, error) {
	about, err := d.scope(v)
	if err != nil {
		return answer{}, err
	}
	p := auditPage{scope: about}
	page, err := d.store.AuditPage(v.Context(), sqlkeys.AuditFilter{SenderID: about.Sender, KeyID: about.Key}, paging(v))
	if err := pagingError(err); err != nil {
		return answer{}, err
	}
	p.older = olderThan(v, page.Next)
	for _, e := range page.Items {
		p.Entries = append(p.Entries, auditRow{e, actions[e.Action], detailOf(e)})
	}
	return answer{template: "audit.html", title: "Audit trail", tab: "audit", sender: about.Sender, body: p}, nil
}

// actions say what the actions of the audit mean.
var actions = map[string]string{
	"key.issue":      "generated a key",
	"key.rotate":     "rotated a key",
	"key.scopes":     "changed the scopes of a key",
	"key.networks":   "changed the networks of a key",
	"key.edit":       "edited a key",
	"key.disable":    "disabled a key",
	"key.enable":     "enabled a key",
	"key.revoke":     "revoked a key",
	"sender.create":  "created the sender",
	"sender.edit":    "edited the sender",
	"sender.delete":  "deleted the sender",
	"sender.limits":  "changed the plan",
	"sender.disable": "disabled the sender",
	"sender.enable":  "enabled the sender",
}

// detailOf returns the details of an entry in one line.
func detailOf(e sqlkeys.AuditEntry) string {
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(e.Detail)) {
		texts = append(texts, name+"="+e.Detail[name])
	}
	return strings.Join(texts, " ")
}
