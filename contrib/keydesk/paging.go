package keydesk

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// listed is how many rows of a list a page shows.
const listed = 100

// paging selects the rows that a page shows, the newest first.
func paging(v visit) sqlkeys.Paging {
	return sqlkeys.Paging{After: v.URL.Query().Get("after"), Limit: listed, Reverse: true}
}

// pagingError returns what is wrong with a page of a list. A row that cannot be read in
// full is shown as far as it can.
func pagingError(err error) error {
	switch {
	case errors.Is(err, sqlkeys.ErrUnreadable):
		return nil
	case errors.Is(err, sqlkeys.ErrInvalid):
		return &refusal{status: http.StatusNotFound, title: "Not found", text: "There is no such page of the list."}
	}
	return err
}

// older is the way on through a list. Its fields are the query of a link, or empty.
type older struct{ Newest, Older string }

// olderThan returns the links of a page of a list. They keep the other values of its
// query.
func olderThan(v visit, next string) older {
	var o older
	q := make(url.Values)
	for _, name := range []string{"sender", "key"} {
		if s := v.URL.Query().Get(name); s != "" && (name != "sender" || v.actor.Operator) {
			q.Set(name, s)
		}
	}
	if v.URL.Query().Has("after") {
		o.Newest = "?" + q.Encode()
	}
	if next != "" {
		q.Set("after", next)
		o.Older = "?" + q.Encode()
	}
	return o
}
