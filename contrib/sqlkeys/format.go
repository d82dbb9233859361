package sqlkeys

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"hash/crc32"
	"strings"

	"github.com/senderauth/senderauth/internal/uuid"
)

// A Format is the way a key is written.
type Format string

const (
	// FormatUUID is a version 4 UUID: 122 random bits.
	FormatUUID Format = "uuid"
	// FormatPrefixed is [Config.Prefix], an underscore, and 39 characters for
	// 160 random bits and a 32-bit checksum. Secret scanners recognize the
	// prefix, and [Store.CheckKey] rejects a mistyped key without a lookup.
	FormatPrefixed Format = "prefixed"
)

const randomBytes, checksumBytes = 20, 4

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// CheckKey reports whether key has one of the formats of this store: a UUID in
// either letter case, a prefixed key with the right checksum, or what
// [Config.AcceptKey] accepts. Use it as CheckKey of [senderauth.Config].
func (s *Store) CheckKey(key string) bool {
	_, ok := s.canonicalKey(key)
	return ok
}

// canonicalKey returns the form of a key that is digested.
func (s *Store) canonicalKey(key string) (string, bool) {
	if canonical, ok := uuid.Canonical(key); ok {
		return canonical, true
	}
	return key, checkPrefixed(s.prefix, key) || s.accept != nil && s.accept(key)
}

func (s *Store) newKey(f Format) (string, error) {
	if f == FormatPrefixed {
		return newPrefixed(s.prefix), nil
	}
	return newUUID()
}

func newPrefixed(prefix string) string {
	var b [randomBytes + checksumBytes]byte
	rand.Read(b[:randomBytes])
	binary.BigEndian.PutUint32(b[randomBytes:], checksum(prefix, b[:randomBytes]))
	return prefix + "_" + keyEncoding.EncodeToString(b[:])
}

func checkPrefixed(prefix, key string) bool {
	text, ok := strings.CutPrefix(key, prefix+"_")
	if !ok || len(text) != keyEncoding.EncodedLen(randomBytes+checksumBytes) {
		return false
	}
	b, err := keyEncoding.DecodeString(text)
	// Several texts decode to the same bytes, but only one of them is the key.
	return err == nil && keyEncoding.EncodeToString(b) == text &&
		binary.BigEndian.Uint32(b[randomBytes:]) == checksum(prefix, b[:randomBytes])
}

func checksum(prefix string, random []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte(prefix)), crc32.IEEETable, random)
}

func validPrefix(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z') {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 32
}
