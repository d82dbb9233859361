package main

import (
	"encoding/csv"
	"errors"
	"strconv"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// settleTime is how long after its end an hour counts as closed. Recorders write every 10
// seconds unless they are told otherwise.
const settleTime = time.Minute

// closedUntil returns the end of the last hour that no recorder adds to any more.
func closedUntil(now time.Time) time.Time { return now.Add(-settleTime).Truncate(time.Hour) }

// usageID names a row for good: an invoice or a second import may refer to it.
func usageID(u sqlkeys.Usage) string {
	return u.KeyID + "/" + u.Hour.UTC().Format("2006-01-02T15Z") + "/" + string(u.Outcome)
}

type exportedUsage struct {
	ID       string             `json:"id"`
	SenderID string             `json:"sender_id"`
	KeyID    string             `json:"key_id"`
	Hour     time.Time          `json:"hour"`
	Outcome  senderauth.Outcome `json:"outcome"`
	Requests int64              `json:"requests"`
}

func (a *app) exportJSON(all usages) error {
	a.json = true
	return printAll(a, all, listing[sqlkeys.Usage]{json: func(u sqlkeys.Usage, _ error) any {
		return exportedUsage{usageID(u), u.SenderID, u.KeyID, u.Hour, u.Outcome, u.Requests}
	}})
}

// exportCSV writes RFC 4180, with a header.
func (a *app) exportCSV(all usages) error {
	w := csv.NewWriter(a.out)
	w.Write([]string{"id", "sender_id", "key_id", "hour", "outcome", "requests"})
	for u, err := range all {
		if err != nil {
			w.Flush()
			return errors.Join(err, w.Error())
		}
		w.Write([]string{usageID(u), u.SenderID, u.KeyID, u.Hour.UTC().Format(time.RFC3339), string(u.Outcome), strconv.FormatInt(u.Requests, 10)})
		if w.Error() != nil {
			break
		}
	}
	w.Flush()
	return w.Error()
}
