package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/senderauth/senderauth"
	"github.com/stretchr/testify/require"
)

// A suite is a file of vectors. It names all members, even those with prose only, so
// that an unknown member is an error.
type suite struct {
	Title, Version, Clock, Schema, Judgements, Routes prose

	NoteOnKeys      prose `json:"note_on_keys"`
	TestApplication prose `json:"test_application"`

	Senders     map[string]struct{ ID, State string }
	Credentials map[string]struct{ Sender, Key, State string }
	Policies    map[string]policy
	Configs     map[string]string
	Counts      struct {
		Total   int
		ByGroup map[string]int `json:"by_group"`
		ByBasis prose          `json:"by_basis"`
	}
	Vectors []*vector
}

type prose = json.RawMessage

type policy struct {
	limit     senderauth.Limit
	advertise string // the parameters in RateLimit-Policy, or "" if they are not checked
}

func (p *policy) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"Blocked()"`:
		p.limit = senderauth.Blocked()
		return nil
	case `"Unlimited()"`:
		p.limit = senderauth.Unlimited()
		return nil
	}
	var v struct {
		Rate      float64 `json:"rate_per_s"`
		Burst     int
		Advertise string
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	per := math.Round(float64(v.Burst) / v.Rate)
	p.limit = senderauth.Limit{Requests: v.Burst, Per: time.Duration(per) * time.Second, Burst: v.Burst}
	p.advertise = v.Advertise
	return nil
}

type vector struct {
	ID, Group     string
	Source, Basis prose
	BasisNote     prose `json:"basis_note"`

	Config, Protocol string
	Method, Path     string
	HTTPVersion      string `json:"http_version"`
	Host             *bool
	Headers          []field
	Encoding         string
	Body             string
	RawRequest       string  `json:"raw_request"`
	H2Pseudo         string  `json:"h2_pseudo"`
	H2Trailers       []field `json:"h2_trailers"`

	Precondition struct {
		Limiter        []level
		Steps          []step
		StoreExtra     string `json:"store_extra"`
		CheckResponse  int    `json:"check_response"`
		ResponsesExact int    `json:"responses_exact"`

		Sequence, Cache prose // the same as Steps, in words
	}
	Expect struct {
		Status  int
		Detail  *string
		Headers struct {
			Present map[string]string
			Absent  []string
		}
		ProblemJSON   bool `json:"problem_json"`
		QuotaConsumed int  `json:"quota_consumed"`
		Policy        string
		HandlerCalled bool `json:"handler_called"`
		JSON          map[string]any
		ResetInS      *float64 `json:"reset_in_s"`
		Layer         string
	}
}

type level struct {
	Sender, Policy string
	Tokens         float64
}

type step struct {
	Send       string
	Status     int
	Key, State string
	Forget     string
	Store      string
	Wait       string
}

// A field is [name, value] or [name, value, separator].
type field struct{ name, separator, value string }

func (f *field) UnmarshalJSON(b []byte) error {
	var parts []string
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	switch len(parts) {
	case 2:
		*f = field{parts[0], ": ", parts[1]}
	case 3:
		*f = field{parts[0], parts[2], parts[1]}
	default:
		return fmt.Errorf("a field has %d parts, want 2 or 3", len(parts))
	}
	return nil
}

// unsentBody marks a body that the request announces and never sends.
const unsentBody = "<never sent>"

// load reads both files. The vectors of more.json use the senders, credentials,
// policies and configurations of vectors.json.
func load(t testing.TB) *suite {
	t.Helper()
	s, more := new(suite), new(suite)
	for path, to := range map[string]*suite{"testdata/vectors.json": s, "testdata/more.json": more} {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		require.NoError(t, d.Decode(to), path)
	}
	require.Len(t, s.Vectors, s.Counts.Total)
	groups := map[string]int{}
	for _, v := range s.Vectors {
		groups[v.Group]++
	}
	require.Equal(t, s.Counts.ByGroup, groups)

	s.Vectors = append(s.Vectors, more.Vectors...)
	seen := map[string]bool{}
	for _, v := range s.Vectors {
		require.False(t, seen[v.ID], "two vectors are called %s", v.ID)
		seen[v.ID] = true
		require.Contains(t, []string{"h1", "h2"}, v.Protocol, v.ID)
		require.Contains(t, []string{"", "x-escapes"}, v.Encoding, v.ID)
		v.decode()
	}
	return s
}

func (s *suite) vector(id string) *vector {
	for _, v := range s.Vectors {
		if v.ID == id {
			return v
		}
	}
	panic("no vector " + id)
}

var (
	escape = regexp.MustCompile(`\\x[0-9a-fA-F]{2}`)
	repeat = regexp.MustCompile(`^@repeat:(.):([0-9]+)$`)
)

// decode replaces the file's escapes for bytes that JSON cannot hold, and its
// shorthand for long values.
func (v *vector) decode() {
	for i := range v.Headers {
		h := &v.Headers[i]
		if m := repeat.FindStringSubmatch(h.value); m != nil {
			n, _ := strconv.Atoi(m[2])
			h.value = strings.Repeat(m[1], n)
		}
	}
	if v.Encoding != "x-escapes" {
		return
	}
	unescape := func(s string) string {
		return escape.ReplaceAllStringFunc(s, func(x string) string {
			n, _ := strconv.ParseUint(x[2:], 16, 8)
			return string([]byte{byte(n)})
		})
	}
	for i := range v.Headers {
		h := &v.Headers[i]
		h.name, h.value = unescape(h.name), unescape(h.value)
	}
	v.RawRequest = unescape(v.RawRequest)
}

// has reports whether the vector itself sets the field name.
func (v *vector) has(name string) bool {
	for _, h := range v.Headers {
		if strings.EqualFold(h.name, name) {
			return true
		}
	}
	return false
}
