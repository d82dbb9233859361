// Package uuid reads UUIDs in the one form that the headers allow: 36
// characters with hyphens, neither the nil nor the max UUID.
//
// The packages for UUIDs accept other forms as well, and one of them accepts
// any characters around a UUID.
package uuid

// A UUID is the 128 bits of a UUID.
type UUID [16]byte

var maxUUID = UUID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Parse reads exactly the 36 characters of RFC 9562 section 4, in either letter
// case, and refuses the nil and the max UUID (sections 5.9 and 5.10). lower
// reports that s has no upper-case letter.
func Parse(s string) (u UUID, lower, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return UUID{}, false, false
	}
	bad, small := byte(0), byte(0x20)
	for i, at := range digits {
		hi, lo := s[at], s[at+1]
		h, l := hexValue[hi], hexValue[lo]
		bad |= h | l
		small &= hi & lo
		u[i] = h<<4 | l&0x0f
	}
	if bad&0xf0 != 0 || u == (UUID{}) || u == maxUUID {
		return UUID{}, false, false
	}
	return u, small != 0, true
}

// IsNilOrMax reports the nil and the max UUID, which are nobody's.
func IsNilOrMax(s string) bool {
	return s == "00000000-0000-0000-0000-000000000000" || Lower(s) == "ffffffff-ffff-ffff-ffff-ffffffffffff"
}

// Canonical returns s in lower case. The boolean is false, and s unchanged, if
// Parse refuses s.
func Canonical(s string) (string, bool) {
	_, lower, ok := Parse(s)
	if ok && !lower {
		s = Lower(s)
	}
	return s, ok
}

// Lower returns s with its ASCII letters in lower case. strings.ToLower would
// fold other characters too, the Kelvin sign to a k.
func Lower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

// digits are the places of the sixteen pairs of hexadecimal digits.
var digits = [16]int{0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34}

// hexValue is the value of a hexadecimal digit, or 0xff.
var hexValue = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i := range 16 {
		t["0123456789abcdef"[i]] = byte(i)
		t["0123456789ABCDEF"[i]] = byte(i)
	}
	return t
}()
