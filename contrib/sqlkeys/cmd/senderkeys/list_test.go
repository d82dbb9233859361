package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// exec changes the database by hand.
func (s shell) exec(query string) {
	s.t.Helper()
	db, err := sqlkeys.OpenDB(s.source)
	require.NoError(s.t, err)
	defer db.Close()
	_, err = db.Exec(query)
	require.NoError(s.t, err)
}

func TestRowEditedByHandIsShownAndCanBeRepaired(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		sender := strings.TrimSpace(s.ok("sender", "create"))
		bad := s.issue(sender)
		good := s.issue(strings.TrimSpace(s.ok("sender", "create")))
		s.exec(`UPDATE sqlkeys_keys SET metadata = '{"a":1,"b":"2"}' WHERE id = '` + bad + `'`)
		s.exec(`UPDATE sqlkeys_senders SET limits = '{"default":"many","x":"5/s"}' WHERE id = '` + sender + `'`)
		keyWrong := "key " + bad + `: metadata: unreadable: "a" is not a string`
		senderWrong := "sender " + sender + `: limits: unreadable: "default" is "many", not a limit such as 200/1m:50`
		listWrong := func(wrong string) string {
			return "senderkeys: " + wrong + "\nsenderkeys: rows that cannot be read in full: 1\n"
		}

		r := s.with("", "key", "list")
		require.Equal(t, result{1, r.out, listWrong(keyWrong)}, r)
		require.Contains(t, r.out, bad+"  "+sender+"  active  ")
		require.Contains(t, r.out, good)
		r = s.with("", "key", "list", "-sender", sender, "-json")
		require.Equal(t, result{1, r.out, listWrong(keyWrong)}, r)
		var keys []map[string]any
		require.NoError(t, json.Unmarshal([]byte(r.out), &keys))
		require.Equal(t, keyWrong, keys[0]["unreadable"])
		require.Equal(t, map[string]any{"b": "2"}, keys[0]["metadata"])
		r = s.with("", "key", "show", bad)
		require.Equal(t, result{1, r.out, "senderkeys: " + keyWrong + "\n"}, r)
		require.Contains(t, r.out, "metadata     b=2\n")
		r = s.with("", "sender", "list")
		require.Equal(t, result{1, r.out, listWrong(senderWrong)}, r)
		require.Contains(t, r.out, sender+"  active  x=5/1s  ")
		r = s.with("", "sender", "show", sender)
		require.Equal(t, result{1, r.out, "senderkeys: " + senderWrong + "\n"}, r)
		require.Contains(t, r.out, "limits   x=5/1s\n")

		s.ok("sender", "limit", sender, "-limit", "default=5/1m")
		require.Contains(t, s.ok("sender", "list"), sender+"  active  default=5/1m0s  ")
		require.Contains(t, s.ok("key", "rotate", bad, "-json"), `"state": "active"`)
		require.Zero(t, s.with("y\n", "key", "revoke", bad).code)
		require.Contains(t, s.ok("key", "disable", good, "-json"), `"state": "disabled"`)
	})
}

// numbers yields 0 to n-1.
func numbers(n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func numberListing(wide int) listing[int] {
	return listing[int]{
		header: []string{"A", "B"},
		row: func(i int) []string {
			if i == wide {
				return []string{"wider", fmt.Sprint(i)}
			}
			return []string{"a", fmt.Sprint(i)}
		},
		json: func(i int, _ error) any { return map[string]int{"<i>": i} },
	}
}

func TestTableColumnsGrowWithLaterRows(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, printAll(&app{out: &out}, numbers(1200), numberListing(700)))
	lines := strings.Split(out.String(), "\n")
	require.Len(t, lines, 1202)
	require.Equal(t, []string{"A  B", "a  0"}, lines[:2])
	require.Equal(t, []string{"wider  700", "a      701"}, lines[701:703])
	require.Equal(t, []string{"a      1199", ""}, lines[1200:])
}

func TestListIsTheJSONOfAnArray(t *testing.T) {
	for n := range 3 {
		var out, want bytes.Buffer
		require.NoError(t, printAll(&app{out: &out, json: true}, numbers(n), numberListing(0)))
		values := []any{}
		for i := range n {
			values = append(values, map[string]int{"<i>": i})
		}
		e := json.NewEncoder(&want)
		e.SetIndent("", "  ")
		require.NoError(t, e.Encode(values))
		require.Equal(t, want.String(), out.String())
	}
}

func TestListsTakeConstantMemory(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		const rows = 200_000
		var before, after runtime.MemStats
		heap := func(yield func(int, error) bool) {
			for i := range numbers(rows) {
				switch i {
				case 1000:
					runtime.GC()
					runtime.ReadMemStats(&before)
				case rows - 1:
					runtime.GC()
					runtime.ReadMemStats(&after)
				}
				if !yield(i, nil) {
					return
				}
			}
		}
		require.NoError(t, printAll(&app{out: io.Discard, json: asJSON}, heap, numberListing(0)))
		require.Less(t, after.HeapAlloc, before.HeapAlloc+2<<20)
	}
}

func TestListsByState(t *testing.T) {
	onBoth(t, func(s shell) {
		t := s.t
		s.ok("migrate")
		one, two := strings.TrimSpace(s.ok("sender", "create")), strings.TrimSpace(s.ok("sender", "create"))
		works, gone := s.issue(one), s.issue(two)
		s.ok("key", "revoke", gone, "-yes")
		s.ok("sender", "disable", two)
		column := func(args ...string) (cells []string) {
			t.Helper()
			for line := range strings.Lines(s.ok(args...)) {
				cells = append(cells, strings.Fields(line)[0])
			}
			return cells
		}
		require.Equal(t, []string{"KEY", gone}, column("key", "list", "-state", "revoked"))
		require.Equal(t, []string{"KEY", works}, column("key", "list", "-state", "active"))
		require.Equal(t, []string{"KEY"}, column("key", "list", "-state", "revoked", "-sender", one))
		require.Equal(t, []string{"SENDER", two}, column("sender", "list", "-state", "disabled"))
		require.Equal(t, []string{"SENDER", one}, column("sender", "list", "-state", "active"))
		require.Equal(t, result{2, "", "senderkeys: -state: invalid: there is no state \"dead\"\n"}, s.with("", "key", "list", "-state", "dead"))
		require.Equal(t, result{2, "", "senderkeys: -state: invalid: \"revoked\" is neither active nor disabled\n"}, s.with("", "sender", "list", "-state", "revoked"))
	})
}
