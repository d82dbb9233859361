package redislimit

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"
)

// This file has the arguments and the replies of the scripts. An argument is a string of
// little-endian doubles, which Lua unpacks with the formats in the comments.

// packedLimit is the size of a packed scale, in bytes.
const packedLimit = 28

// packLimit returns '<dddf': the parts of a token, the parts of a tick, those of
// a full bucket, and a tick in microseconds.
func packLimit(s *scale) string {
	b := appendDoubles(make([]byte, 0, packedLimit), s.perToken, s.perTick, s.full)
	return string(binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(s.tick))))
}

// packTake returns an argument of take.lua, '<dddfdd': a limit, the parts to take, and those
// that were admitted without Redis.
func packTake(s *scale, parts, owed uint64) string {
	var b [packedLimit + 2*8]byte
	return string(appendDoubles(append(b[:0], s.packed...), parts, owed))
}

// packOrder returns an argument of lease.lua, '<dddfdddddddddd': a limit, the tokens to take,
// the parts that were admitted without Redis, the tokens to lease and for how many
// microseconds, and the settlement of each lease.
func packOrder(o *order) string {
	var b [packedLimit + 10*8]byte
	args := appendDoubles(append(b[:0], o.packed...), uint64(o.need), o.owed, uint64(o.extra), uint64(o.term/time.Microsecond))
	for i := range o.settled {
		e := &o.settled[i]
		args = appendDoubles(args, uint64(e.lapse), uint64(e.spent), uint64(e.back))
	}
	return string(args)
}

func appendDoubles(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(n)))
	}
	return b
}

// A takeReply is the reply of take.lua: whether the parts were taken, and for each bucket its
// level afterwards and for how many microseconds it has had it.
type takeReply []int64

func parseTakeReply(numbers []int64, buckets int) (takeReply, error) {
	if len(numbers) != 1+2*buckets {
		return nil, fmt.Errorf("redislimit: the script's reply has %d numbers", len(numbers))
	}
	return numbers, nil
}

func (y takeReply) taken() bool { return y[0] == 1 }

func (y takeReply) bucket(i int) (level uint64, unchanged time.Duration) {
	return uint64(y[1+2*i]), microseconds(y[2+2*i])
}

// A leaseReply is the reply of lease.lua: whether the tokens were taken, the time in
// microseconds, and four numbers for each bucket.
type leaseReply []int64

// A leasedBucket is the state of a bucket after a fetch, and what was leased.
type leasedBucket struct {
	level     uint64
	unchanged time.Duration // how long it has had that level
	leased    int
	lapse     int64
}

func parseLeaseReply(numbers []int64, buckets int) (leaseReply, error) {
	if len(numbers) != 2+4*buckets {
		return nil, fmt.Errorf("redislimit: the script's reply has %d numbers", len(numbers))
	}
	return numbers, nil
}

func (z leaseReply) taken() bool  { return z[0] == 1 }
func (z leaseReply) clock() int64 { return z[1] }

func (z leaseReply) bucket(i int) leasedBucket {
	n := z[2+4*i:]
	return leasedBucket{level: uint64(n[0]), unchanged: microseconds(n[1]), leased: int(n[2]), lapse: n[3]}
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
