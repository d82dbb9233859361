package senderauth

import "time"

// StepWallClock makes the wall clock seem to have been set forward by d, as it
// is after the machine slept for d. If d is negative, it was set back.
func (c *Cache) StepWallClock(d time.Duration) {
	c.clock.mu.Lock()
	defer c.clock.mu.Unlock()
	c.clock.offset -= int64(d)
}
