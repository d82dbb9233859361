package sqlkeys

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// A Format is how a key is written.
type Format string

const (
	// FormatUUID is a version 4 UUID: 122 random bits. Guards accept it
	// without any configuration.
	FormatUUID Format = "uuid"
	// FormatPrefixed is [Config.Prefix], an underscore, and 39 characters for
	// 160 random bits and a checksum of 32. Scanners for secrets find it by
	// its prefix, and a mistyped one is refused without a look-up. Guards need
	// [Store.CheckKey] as their CheckKey.
	FormatPrefixed Format = "prefixed"
)

const randomBytes, checksumBytes = 20, 4

var keyEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// CheckKey reports whether key is a UUID or a prefixed key with the right
// checksum. It is a [senderauth.Config] CheckKey that accepts both formats.
func (s *Store) CheckKey(key string) bool {
	_, ok := s.canonicalKey(key)
	return ok
}

// canonicalKey returns the form of a key that is digested.
func (s *Store) canonicalKey(key string) (string, bool) {
	if canonical, ok := canonicalUUID(key); ok {
		return canonical, true
	}
	return key, checkPrefixed(s.prefix, key)
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
	// Several texts decode to the same bytes; one of them is the key.
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

// digest is what the store keeps of a key.
func digest(pepper []byte, key string) []byte {
	if len(pepper) == 0 {
		d := sha256.Sum256([]byte(key))
		return d[:]
	}
	h := hmac.New(sha256.New, pepper)
	h.Write([]byte(key))
	return h.Sum(nil)
}

// newKeyID is the public name of a key: 80 random bits, that have nothing to
// do with the key.
func newKeyID() string {
	return keyIDPrefix + strings.ToLower(rand.Text()[:16])
}

const keyIDPrefix = "key_"

// checkKeyID does not show what it refuses: it may be the key itself.
func checkKeyID(id string) error {
	text, ok := strings.CutPrefix(id, keyIDPrefix)
	if !ok || len(text) != 16 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return fmt.Errorf("sqlkeys: key ID: %w: it does not look like key_ and 16 characters", ErrInvalid)
	}
	return nil
}
