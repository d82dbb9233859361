package uuid

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const letters = "abcdefab-cdef-abcd-efab-cdefabcdefab"

func TestParseReadsEachDigit(t *testing.T) {
	u, lower, ok := Parse("01234567-89ab-cdef-0123-456789ABCDEF")
	require.True(t, ok)
	require.False(t, lower)
	require.Equal(t, UUID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, u)
}

func TestOneUpperCaseLetterAnywhereIsNotLower(t *testing.T) {
	u, lower, ok := Parse(letters)
	require.True(t, ok)
	require.True(t, lower)
	for i := range letters {
		if letters[i] == '-' {
			continue
		}
		s := letters[:i] + strings.ToUpper(letters[i:i+1]) + letters[i+1:]
		v, lower, ok := Parse(s)
		require.True(t, ok)
		require.False(t, lower, s)
		require.Equal(t, u, v)
		canonical, ok := Canonical(s)
		require.True(t, ok)
		require.Equal(t, letters, canonical)
	}
}

func TestOneWrongCharacterAnywhereIsRefused(t *testing.T) {
	for i := range letters {
		for _, c := range []string{"g", "G", "-", "/", ":", "@", "`", " ", "\x00", "\x80", ""} {
			if s := letters[:i] + c + letters[i+1:]; s != letters {
				_, _, ok := Parse(s)
				require.False(t, ok, "%q", s)
				same, ok := Canonical(s)
				require.False(t, ok)
				require.Equal(t, s, same)
			}
		}
	}
}

func TestNilAndMaxAreNobodys(t *testing.T) {
	for s, want := range map[string]bool{
		"00000000-0000-0000-0000-000000000000": true,
		"ffffffff-ffff-ffff-ffff-ffffffffffff": true,
		"FFFFFFFF-FFFF-FFFF-FFFF-fffffffffffF": true,
		"00000000-0000-0000-0000-000000000001": false,
		"fffffffe-ffff-ffff-ffff-ffffffffffff": false,
	} {
		require.Equal(t, want, IsNilOrMax(s), s)
		_, _, ok := Parse(s)
		require.Equal(t, !want, ok, s)
	}
	require.False(t, IsNilOrMax(""))
}

func TestLowerFoldsASCIIAlone(t *testing.T) {
	require.Equal(t, "az[\u212aÄ@", Lower("AZ[\u212aÄ@"))
}
