package senderauth

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/senderauth/senderauth/internal/uuid"
)

// A digest stands for a pair of sender and key: 128 bits of a SHA-256.
type digest [2]uint64

// equal takes the same time whatever the digests are.
func (d digest) equal(e digest) bool { return d[0]^e[0]|d[1]^e[1] == 0 }

// digest names a pair. Each part has a fixed width or its length in front, so
// that no two pairs are written alike. The secret keeps clients from choosing
// keys that meet in one shard, and makes a digest worthless elsewhere.
func (c *Cache) digest(cr Credentials) digest {
	if sender, lower, ok := uuid.Parse(cr.SenderID); ok && lower {
		if key, lower, ok := uuid.Parse(cr.APIKey); ok && lower {
			return c.digestUUIDs(sender, key)
		}
	}
	b := make([]byte, 0, 1+len(c.secret)+binary.MaxVarintLen64+36+maxKeyLength)
	b = append(b, 1)
	b = append(b, c.secret[:]...)
	b = binary.AppendUvarint(b, uint64(len(cr.SenderID)))
	b = append(b, cr.SenderID...)
	b = append(b, cr.APIKey...)
	return cut(sha256.Sum256(b))
}

// digestUUIDs hashes the pair as 49 bytes, which fit one block of SHA-256. The
// text of 90 bytes takes two: 74 ns more in a request of 861
// (BenchmarkGuard/fields=none/one).
func (c *Cache) digestUUIDs(sender, key uuid.UUID) digest {
	var b [1 + 16 + 16 + 16]byte
	copy(b[1:], c.secret[:])
	copy(b[17:], sender[:])
	copy(b[33:], key[:])
	return cut(sha256.Sum256(b[:]))
}

func cut(sum [sha256.Size]byte) digest {
	return digest{binary.LittleEndian.Uint64(sum[:]), binary.LittleEndian.Uint64(sum[8:])}
}
