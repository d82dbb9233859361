package redislimit

import "time"

// In lease mode an instance holds tokens that it took from Redis ahead of need.
// Redis keeps their place in the bucket: the tokens in it and the leased ones
// together never exceed the burst, and flow back no faster than the limit says.
// A lease ends when it is spent, given back, or lapses by the clock of Redis. An
// instance stops using it earlier, by its own clock.
//
// Why the fleet never admits more than burst + rate x T in any T seconds: let P
// be the tokens in Redis plus those that instances hold and may still use. P is
// at most the burst. Leasing and giving back move tokens and leave P unchanged,
// lapsing lowers it, the refill raises it by at most rate x T, and each
// admission lowers it by one.
//
// The parts of lease mode: a reserve is the state of one bucket, a holding that of one
// sender, a leaseTable that of all senders in a shard. All three are plain values that
// decide at a given time. leaseMap has the locks, wire.go the format of the messages to and
// from lease.lua, and leased.go the calls.

// A lease is a number of tokens that lapse together.
type lease struct {
	lapse  int64         // when it lapses, in microseconds by the clock of Redis; also its ID there
	until  time.Duration // when to stop using it, by the instance's clock
	tokens int           // tokens left
	spent  int           // tokens spent and not yet reported to Redis
}

func (e *lease) usable(now time.Duration) bool { return e.until > now }

// shortestTerm is the least time for which leasing pays: a shorter lease would
// hardly outlast the call that brings it.
const shortestTerm = 4 * time.Millisecond

// leaseTerm returns how long tokens of a limit are leased: at most a quarter of the time
// that fills the bucket, because other instances lack the tokens for that long. Zero means
// that the limit is not leased.
func leaseTerm(s *scale, most time.Duration) time.Duration {
	if t := min(most, s.wait(0, s.full, 0)/4); t >= shortestTerm {
		return t
	}
	return 0
}
