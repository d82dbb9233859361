package senderauth_test

import (
	"bytes"
	"context"
	"encoding"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

func TestCredentialsRedactThemselves(t *testing.T) {
	c := pair(1)
	want := "{SenderID:" + fingerprint(senderID(1)) + " APIKey:[redacted]}"
	type holder struct{ C senderauth.Credentials }
	for _, verb := range []string{"v", "+v", "#v", "s", "+s", "q", "x", "X", "d", "T", "50v", "-50.3s", "#q", "t", "c", "U", "e", "g", "b", "o"} {
		if verb != "T" {
			require.Equal(t, want, fmt.Sprintf("%"+verb, c), verb)
		}
		for _, v := range []any{c, &c, holder{c}, &holder{c}, []senderauth.Credentials{c}, map[string]senderauth.Credentials{"c": c}, map[senderauth.Credentials]int{c: 1}, any(c)} {
			noPart(t, fmt.Sprintf("%"+verb, v), apiKey(1))
			noPart(t, fmt.Sprintf("%"+verb, v), senderID(1)) // a client may have mixed up the headers
		}
	}
	for _, mistaken := range []string{"x", "%d%!", "%[9]v", "%[2]*v", "%.*v"} {
		noPart(t, fmt.Sprintf(mistaken, c, &c), apiKey(1))
	}
	noPart(t, fmt.Sprint(c, &c)+fmt.Sprintln(c)+c.String()+errors.Join(fmt.Errorf("%v", c)).Error(), apiKey(1))

	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "c", c, "p", &c, "h", holder{c}, slog.Group("g", "c", c))
	}
	log.New(&out, "", 0).Print(c, holder{c})
	require.NoError(t, json.NewEncoder(&out).Encode([]any{c, &c, holder{c}, map[string]any{"c": c}}))
	require.NoError(t, xml.NewEncoder(&out).Encode(holder{c}))
	require.Contains(t, out.String(), fingerprint(senderID(1)))
	require.Contains(t, out.String(), "[redacted]")
	noPart(t, out.String(), apiKey(1))
	noPart(t, out.String(), senderID(1))

	b, err := json.Marshal(c)
	require.NoError(t, err)
	require.Equal(t, `{"SenderID":"`+fingerprint(senderID(1))+`","APIKey":"[redacted]"}`, string(b))
	b, err = encoding.TextMarshaler(c).MarshalText()
	require.NoError(t, err)
	require.Equal(t, want, string(b))
}

// A client that mixes up the two headers sends its key as the sender ID.
func TestSwappedHeadersShowNoKey(t *testing.T) {
	a := newApp(t, func(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
		return senderauth.Sender{}, fmt.Errorf("query for %v: timeout", c)
	}, senderauth.Config{})
	serve(a, request("x-sender-id", apiKey(1), "x-api-key", senderID(1)))
	noPart(t, fmt.Sprintf("%+v", a.events[0])+a.events[0].Err.Error(), apiKey(1))
}

// uuidForms are values of a header, and whether each is a valid UUID.
var uuidForms = map[string]bool{
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a1":   true,
	"7A1DE7B4-3A0E-4D6E-9C2B-0000000000A1":   true,
	"7a1de7b4-3a0e-4D6E-9c2b-0000000000a1":   true,
	"00000000-0000-0000-0000-000000000001":   true, // any version and variant
	"ffffffff-ffff-ffff-ffff-fffffffffffe":   true,
	nilUUID:                                  false,
	maxUUID:                                  false,
	strings.ToUpper(maxUUID):                 false,
	"FFFFFFFF-ffff-ffff-ffff-ffffffffffff":   false,
	"":                                       false,
	" ":                                      false,
	"7a1de7b43a0e4d6e9c2b0000000000a1":       false,
	"{7a1de7b4-3a0e-4d6e-9c2b-0000000000a1}": false,
	"urn:uuid:7a1de7b4-3a0e-4d6e-9c2b-0000000000a1": false,
	"x7a1de7b4-3a0e-4d6e-9c2b-0000000000a1y":        false,
	" 7a1de7b4-3a0e-4d6e-9c2b-0000000000a1":         false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a1 ":         false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a1\t":        false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a1\u00a0":    false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a":           false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a11":         false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000g1":          false,
	"7a1de7b4_3a0e_4d6e_9c2b_0000000000a1":          false,
	"7a1de7b403a0e-4d6e-9c2b-0000000000a1":          false, // each hyphen
	"7a1de7b4-3a0e04d6e-9c2b-0000000000a1":          false,
	"7a1de7b4-3a0e-4d6e09c2b-0000000000a1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b00000000000a1":          false,
	"7a1de7b43-a0e-4d6e-9c2b-0000000000a1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000\uff11":      false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000a-":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000%1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-00000000\x0000a1":      false,
	"\u212aa1de7b4-3a0e-4d6e-9c2b-0000000000":       false,
	"Bearer 0000-0000-0000-0000-000000000000":       false,
	strings.Repeat("7", 36):                         false,
	strings.Repeat("-", 36):                         false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000@1":          false, // next to the digits and letters in ASCII
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000`1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000/1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000:1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000[1":          false,
	"7a1de7b4-3a0e-4d6e-9c2b-0000000000\x101":       false,
}

// wellFormed is a second implementation of the same rule.
func wellFormed(s string) bool {
	return regexp.MustCompile(`\A[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z`).MatchString(s) &&
		s != nilUUID && strings.ToLower(s) != maxUUID
}

func TestUUIDForms(t *testing.T) {
	for form, want := range uuidForms {
		require.Equal(t, want, wellFormed(form), "%q", form)
		_, err := senderauth.Static(senderauth.Credentials{SenderID: form, APIKey: "k"})
		require.Equal(t, want, err == nil, "%q", form)
	}
}

// echo is a validator that accepts any key for the sender in the request.
func echo(_ context.Context, c senderauth.Credentials) (senderauth.Sender, error) {
	return senderauth.Sender{ID: c.SenderID}, nil
}

// FuzzSenderHeader and FuzzKeyHeader check that any value gets the contract's
// answer, that a malformed one causes no lookup, and that only the case of ASCII
// letters is ignored.
func FuzzSenderHeader(f *testing.F) {
	for form := range uuidForms {
		f.Add(form)
	}
	f.Fuzz(func(t *testing.T, value string) {
		synctest.Test(t, func(t *testing.T) {
			a := newApp(t, echo, senderauth.Config{RateFields: senderauth.RateFieldsNone})
			got := serve(a, request("x-sender-id", value, "x-api-key", apiKey(1)))
			switch {
			case value == "":
				require.Equal(t, noSender, got)
			case !wellFormed(value):
				require.Equal(t, badSender, got)
			default:
				id := strings.ToLower(value)
				want := hello(1)
				want.Body = "hello " + id
				require.Equal(t, want, got)
				require.Equal(t, []senderauth.Credentials{{SenderID: id, APIKey: apiKey(1)}}, a.asked)
				return
			}
			require.Empty(t, a.asked)
		})
	})
}

func FuzzKeyHeader(f *testing.F) {
	for form := range uuidForms {
		f.Add(form)
	}
	f.Add(apiKey(1))
	f.Add(strings.ToUpper(apiKey(1)))
	f.Add(apiKey(1) + ", " + apiKey(1))
	f.Fuzz(func(t *testing.T, value string) {
		a := newApp(t, nil, senderauth.Config{RateFields: senderauth.RateFieldsNone})
		cached, err := senderauth.New(newCache(t, senderauth.ValidatorFunc(knowsAll), senderauth.CacheConfig{Entries: 1}), senderauth.Config{Limits: limits(three), RateFields: senderauth.RateFieldsNone})
		require.NoError(t, err)
		want, asked := badKey, 0
		switch {
		case value == "":
			want = noKey
		case strings.ToLower(value) == apiKey(1) && wellFormed(value):
			want, asked = hello(1), 1
		case wellFormed(value):
			asked = 1
			if _, ok := owner(strings.ToLower(value)); ok {
				want = mismatched
			}
		}
		r := request("x-sender-id", senderID(1), "x-api-key", value)
		require.Equal(t, want, serve(a, r))
		require.Len(t, a.asked, asked)
		for range 2 {
			require.Equal(t, want, serve(cached.Wrap(a.hello()), r))
		}
	})
}

func TestStatic(t *testing.T) {
	v, err := senderauth.Static(
		senderauth.Credentials{SenderID: strings.ToUpper(senderID(1)), APIKey: strings.ToUpper(apiKey(1))},
		senderauth.Credentials{SenderID: senderID(1), APIKey: "Case-Matters-Here"},
		pair(2),
	)
	require.NoError(t, err)
	for _, c := range []struct {
		pair senderauth.Credentials
		want error
	}{
		{pair(1), nil},
		{senderauth.Credentials{SenderID: senderID(1), APIKey: "Case-Matters-Here"}, nil},
		{senderauth.Credentials{SenderID: senderID(1), APIKey: "case-matters-here"}, senderauth.ErrInvalidKey},
		{senderauth.Credentials{SenderID: senderID(1), APIKey: apiKey(2)}, senderauth.ErrKeyMismatch},
		{senderauth.Credentials{SenderID: senderID(1)}, senderauth.ErrInvalidKey},
		{senderauth.Credentials{}, senderauth.ErrInvalidKey},
	} {
		s, err := v.Validate(context.Background(), c.pair)
		require.ErrorIs(t, err, c.want)
		if c.want == nil {
			require.Equal(t, senderauth.Sender{ID: senderID(1), Scopes: []string{senderauth.AllScopes}}, s)
		}
	}
	noPart(t, fmt.Sprintf("%v %+v %#v", v, v, v), apiKey(1))
}

func TestStaticReportsEveryMistake(t *testing.T) {
	v, err := senderauth.Static(
		pair(1),
		senderauth.Credentials{SenderID: "not-a-uuid", APIKey: "key with spaces"},
		senderauth.Credentials{SenderID: senderID(2), APIKey: ""},
		senderauth.Credentials{SenderID: senderID(2), APIKey: strings.ToUpper(apiKey(1))},
		senderauth.Credentials{SenderID: nilUUID, APIKey: strings.Repeat("k", 513)},
		senderauth.Credentials{SenderID: "sk_swapped_by_mistake", APIKey: senderID(3)},
		senderauth.Credentials{SenderID: senderID(4), APIKey: nilUUID}, // a placeholder that nobody filled in
		senderauth.Credentials{SenderID: senderID(4), APIKey: strings.ToUpper(maxUUID)},
		senderauth.Credentials{SenderID: senderID(4), APIKey: ""},
		senderauth.Credentials{SenderID: senderID(4), APIKey: nilUUID},
	)
	require.Nil(t, v)
	const noSender, noKey = "SenderID is not a UUID of 36 characters, or is the nil or max UUID", "APIKey is not 1 to 512 visible ASCII characters"
	mistakes := []string{ // without any value: a key in the wrong place is still a key
		"1: " + noSender, "1: " + noKey,
		"2: " + noKey,
		"3: APIKey is given twice",
		"4: " + noSender, "4: " + noKey,
		"5: " + noSender,
		"6: APIKey is the nil or max UUID",
		"7: APIKey is the nil or max UUID",
		"8: " + noKey,
		"9: APIKey is the nil or max UUID",
	}
	for i, mistake := range mistakes {
		mistakes[i] = "senderauth: Static: credentials " + mistake
	}
	require.EqualError(t, err, strings.Join(mistakes, "\n"))
}

// No credentials, no validator, an empty header or an empty sender ID lets nobody
// in.
func TestMissingPartsAdmitNobody(t *testing.T) {
	_, err := senderauth.Static()
	require.EqualError(t, err, "senderauth: Static: no credentials")
	_, err = senderauth.New(nil, senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")
	_, err = senderauth.New(senderauth.ValidatorFunc(nil), senderauth.Config{Limits: limits(three)})
	require.EqualError(t, err, "senderauth: New: the Validator is nil")

	a := newApp(t, echo, senderauth.Config{CheckKey: anyKey})
	require.Equal(t, noKey, serve(a, request("x-sender-id", senderID(1), "x-api-key", "")))
	require.Equal(t, noSender, serve(a, request("x-sender-id", "", "x-api-key", apiKey(1))))
	require.Empty(t, a.asked)
	a = newApp(t, echo, senderauth.Config{KeyOnly: true})
	require.Equal(t, internal, serve(a, request("x-api-key", apiKey(1))), "the validator returns a sender without an ID")
}
