package redislimit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// scan is a step of SCAN. As a script with a key it runs on the server that
// holds the sender's buckets, whatever kind of client sends it.
var scan = redis.NewScript(`return redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', 10000)`)

// Reset fills all buckets of a sender and grants its allowances anew, for support staff. It
// hands out a burst. It does the same in this instance's fallback even if Redis is
// unreachable.
//
// It scans all keys of Redis, or of the one master of a Cluster that holds the sender.
// That takes about a second for a million keys. Other instances keep the tokens that
// they have leased for the sender until the leases lapse.
func (l *Limiter) Reset(ctx context.Context, senderID string) error {
	l.local.Reset(senderID)
	l.ledger.forget(senderID)
	if l.leases != nil {
		l.leases.locked(l.leases.shard(senderID), func(t *leaseTable, _ time.Duration) { t.empty(senderID) })
	}
	prefix := l.senderHead(senderID) // of allowances, too
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

// glob quotes what SCAN's patterns give a meaning.
var glob = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
