package senderauth

import "time"

// StepWallClock makes the wall clock seem to have been set forward by d, as it
// is after the machine slept for d. If d is negative, it was set back.
func (c *Cache) StepWallClock(d time.Duration) {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	c.clock.offset -= int64(d)
}

// Now reads the clock of the cache, as every lookup does.
func (c *Cache) Now() time.Duration { return c.clock.now() }

// SharePlace reports whether forgetting one of the senders forgets the other one
// as well, which a hash decides.
func (c *Cache) SharePlace(a, b string) bool { return c.place(a) == c.place(b) }
