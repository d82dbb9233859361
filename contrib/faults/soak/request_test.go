package main

import (
	"io"
	"testing"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestJudgementOfAnAnswer(t *testing.T) {
	k := keyWith()
	k.id, k.credentials = "key_a", senderauth.Credentials{SenderID: tenant}
	for _, c := range []struct {
		kind   kind
		change func(a *answer)
		want   string
	}{
		{own, func(a *answer) { a.status, a.identity, a.rateFields = 200, identity{tenant, "key_a"}, true }, ""},
		{own, func(a *answer) { a.status, a.identity, a.rateFields = 200, identity{tenant, "key_b"}, true }, "the handler saw another sender or key"},
		{own, func(a *answer) { a.status, a.identity = 200, identity{tenant, "key_a"} }, "fields are missing"},
		{foreign, func(a *answer) { a.status, a.identity, a.rateFields = 200, identity{tenant, "key_a"}, true }, "a bad key was admitted"},
		{unknown, func(a *answer) { a.status = 200 }, "a bad key was admitted"},
		{own, func(a *answer) { a.status, a.rateFields, a.retryAfter = 429, true, "1" }, ""},
		{own, func(a *answer) { a.status, a.rateFields = 429, true }, "fields are missing"},
		{malformed, func(a *answer) { a.status, a.rateFields, a.retryAfter = 429, true, "1" }, "a bad key was charged"},
		{own, func(a *answer) { a.status, a.detail = 401, detailInvalid }, "the key was active"},
		{own, func(a *answer) { a.status, a.detail = 401, detailMismatch }, "it is another refusal: " + detailMismatch},
		{foreign, func(a *answer) { a.status, a.detail = 401, detailMismatch }, ""},
		{foreign, func(a *answer) { a.status, a.detail = 401, detailInvalid }, "the key was active"},
		{unknown, func(a *answer) { a.status, a.detail = 401, detailInvalid }, ""},
		{unknown, func(a *answer) { a.status, a.detail = 401, "Invalid x-sender-id" }, "it is another refusal: Invalid x-sender-id"},
		{own, func(a *answer) { a.status, a.retryAfter = 503, "1" }, "PostgreSQL was up"},
		{own, func(a *answer) { a.sent, a.got, a.status, a.retryAfter = at(30), at(31), 503, "1" }, ""},
		{own, func(a *answer) { a.sent, a.got, a.status = at(30), at(31), 503 }, "Retry-After is missing"},
		{malformed, func(a *answer) { a.sent, a.got, a.status, a.retryAfter = at(30), at(31), 503, "1" }, "it needs no lookup"},
		{own, func(a *answer) { a.status = 500 }, "nobody answers this"},
		{own, func(a *answer) { a.err = io.EOF }, "there is no answer"},
	} {
		a := between(5, 6)
		a.kind, a.key, a.credentials.SenderID = c.kind, k, tenant
		c.change(&a)
		require.Equal(t, c.want, a.judge(promisesWith(span{at(30), at(40)})), "%v", a)
	}
}
