package redislimit

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
)

// scan is a step of SCAN. As a script with a key it is asked where the sender's
// buckets are, whatever kind of client that goes through.
var scan = redis.NewScript(`return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 10000)`)

// Reset makes all buckets of a sender full again, for support staff: it hands
// out a burst. It looks through all keys of the Redis, or of the one master of
// a Cluster, that holds the sender: about a second for a million. What other
// instances have leased of the sender's tokens they keep until it lapses.
func (l *Limiter) Reset(ctx context.Context, senderID string) error {
	if l.leases != nil {
		l.leases.drop(senderID)
	}
	prefix := l.key(senderID, "")
	for cursor := "0"; ; {
		reply, err := scan.Run(ctx, l.client, []string{prefix}, cursor, glob.Replace(prefix)+"*").Slice()
		if err != nil {
			return fmt.Errorf("redislimit: Reset: %w", err)
		}
		for _, key := range reply[1].([]any) {
			if err := l.client.Del(ctx, key.(string)).Err(); err != nil {
				return fmt.Errorf("redislimit: Reset: %w", err)
			}
		}
		if cursor = reply[0].(string); cursor == "0" {
			return nil
		}
	}
}

var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
