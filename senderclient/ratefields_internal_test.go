package senderclient

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseItems(t *testing.T) {
	type params = map[string]int64
	long := []item{{"a", params{"r": 1}}, {"b", params{"r": 2, "t": 3}}}
	for _, c := range []struct {
		lines []string
		want  []item
	}{
		{nil, nil},
		{[]string{""}, nil},
		{[]string{" "}, nil},
		{[]string{`"default";r=49;t=1`}, []item{{"default", params{"r": 49, "t": 1}}}},
		{[]string{`"a";r=1, "b";r=2;t=3`}, long},
		{[]string{"\"a\";r=1\t,\t\"b\";  r=2;t=3 "}, long},
		{[]string{`"a";r=1`, `"b";r=2;t=3`}, long},
		{[]string{`"a"`}, []item{{"a", params{}}}},
		{[]string{`"a\"b\\c, d";r=1`}, []item{{`a"b\c, d`, params{"r": 1}}}},
		{[]string{`"a";r=-5;t=999999999999999`}, []item{{"a", params{"r": -5, "t": 999_999_999_999_999}}}},
		{[]string{`"a";r=1;r=2`}, []item{{"a", params{"r": 2}}}},
		{[]string{`"a";r=1;r`}, []item{{"a", params{}}}},
		{[]string{`"a";pk=:cHNs:;qu="a;r=9";x=?1;y=1.5;z=tok/en;w=@17;r=1`}, []item{{"a", params{"r": 1}}}},
		{[]string{`"a";r=1000000000000000`}, []item{{"a", params{}}}},
		{[]string{`"a";r=1,`}, nil},
		{[]string{`,"a";r=1`}, nil},
		{[]string{`"a";r=1 "b";r=1`}, nil},
		{[]string{`"a";r=`}, nil},
		{[]string{`"a";R=1`}, nil},
		{[]string{`"a";`}, nil},
		{[]string{`"a";"b"`}, nil},
		{[]string{`"a";r="b`}, nil},
		{[]string{`"a`}, nil},
		{[]string{`"a\`}, nil},
		{[]string{`"a\b"`}, nil},
		{[]string{"\"a\x7f\""}, nil},
		{[]string{`default;r=1`}, nil},
		{[]string{`100;w=60`}, nil},
	} {
		require.Equal(t, c.want, parseItems(http.Header{"Ratelimit": c.lines}, "Ratelimit"), "%q", c.lines)
	}
}

// Whatever a server sends, no bucket is asked for the impossible.
func FuzzParseItems(f *testing.F) {
	for _, s := range []string{`"default";r=49;t=1, "sensitive";r=0;t=6`, `"a\"b";q=50;w=15;pk=:cHNs:`, `"a";r=-1;t=`, `"a",`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, i := range parseItems(http.Header{"Ratelimit": {s}}, "Ratelimit") {
			for name, n := range i.params {
				require.NotEmpty(t, name)
				require.Less(t, max(n, -n), int64(1e15))
			}
		}
	})
}
