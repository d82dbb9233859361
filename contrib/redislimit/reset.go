package redislimit

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Reset makes all buckets of a sender full again, for support staff: it hands
// out a burst. It looks through all keys of the Redis, or of the one master of
// a Cluster, that holds the sender: about a second for a million. What other
// instances have leased of the sender's tokens they keep until it lapses.
func (l *Limiter) Reset(ctx context.Context, senderID string) error {
	if l.leases != nil {
		l.leases.drop(senderID)
	}
	prefix := l.key(senderID, "")
	var node redis.Cmdable = l.client
	if c, ok := l.client.(*redis.ClusterClient); ok {
		master, err := c.MasterForKey(ctx, prefix)
		if err != nil {
			return fmt.Errorf("redislimit: Reset: %w", err)
		}
		node = master
	}
	keys := node.Scan(ctx, 0, glob.Replace(prefix)+"*", 10_000).Iterator()
	for keys.Next(ctx) {
		if err := node.Del(ctx, keys.Val()).Err(); err != nil {
			return fmt.Errorf("redislimit: Reset: %w", err)
		}
	}
	if err := keys.Err(); err != nil {
		return fmt.Errorf("redislimit: Reset: %w", err)
	}
	return nil
}

var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
