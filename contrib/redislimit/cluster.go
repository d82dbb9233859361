package redislimit

import "sync/atomic"

// A Cluster can fail in parts: the slots of a dead master are down until its replica is
// promoted. Each part of 256 slots has its own line and breaker.
const clusterParts = 64

type part struct {
	line
	breaker
	connecting atomic.Bool // at most one goroutine opens connections
}

// reconnect opens connections in the background.
func (p *part) reconnect(connect func()) {
	if p.connecting.Swap(true) {
		return
	}
	p.spawn(func() {
		defer p.connecting.Store(false)
		connect()
	})
}

func (l *Limiter) part(sender string) *part {
	if len(l.parts) == 1 {
		return &l.parts[0]
	}
	return &l.parts[crc16(l.head[1:]+escaped(sender))%16384/256]
}

// crc16 is the XMODEM variant, by which a Cluster chooses the slot of a key.
func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
