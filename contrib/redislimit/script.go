package redislimit

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed bucket.lua
	bucketLua string
	//go:embed take.lua
	takeLua string
	//go:embed lease.lua
	leaseLua string
	//go:embed allowance.lua
	allowanceLua string

	takeScript  = newScript(takeLua)
	leaseScript = newScript(leaseLua)
	countScript = newScript(allowanceLua)
)

type script struct{ text, sha string }

func newScript(text string) *script {
	text = bucketLua + text
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

// once is a command that the client must not retry by itself. [script.run] knows whether a
// retry is safe.
type once struct{ *redis.IntSliceCmd }

func (once) NoRetry() bool { return true }

// A transport sends a command and waits until it has its reply or an error.
type transport interface {
	send(ctx context.Context, cmd redis.Cmder) error
}

// run runs a script in one round trip. It retries once if Redis did not know the script or
// did not run it, and once more if the server that it then reaches does not know the script.
// If again is set, it also retries after a broken connection, when the script may have run.
// It follows a slot of a Cluster that moves until ctx ends: the client gives up after a few
// redirections, but masters may disagree for longer, and each may hold some of the keys.
func (p *script) run(ctx context.Context, to transport, keys, args []string, again bool) ([]int64, error) {
	words := make([]any, 3, 3+len(keys)+len(args))
	words[0], words[1], words[2] = "evalsha", p.sha, len(keys)
	for _, k := range keys {
		words = append(words, k)
	}
	for _, a := range args {
		words = append(words, a)
	}
	retried := false
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 8*time.Millisecond) {
		reply, err := ints(ctx, to, words)
		switch {
		case err == nil:
			return reply, nil
		case redis.HasErrorPrefix(err, "NOSCRIPT") && words[0] == "evalsha":
			words[0], words[1] = "eval", p.text
			retried = true
		case moving(err):
			pause(ctx, wait)
			if ctx.Err() != nil {
				return nil, err
			}
		case retried:
			return nil, err
		case notDone(err):
			retried = true
			pause(ctx, wait)
		case again && broken(err):
			retried = true
		default:
			return nil, err
		}
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// ints sends a command whose reply is a list of numbers. Its first key is the fourth word.
func ints(ctx context.Context, to transport, words []any) ([]int64, error) {
	cmd := once{redis.NewIntSliceCmd(ctx, words...)}
	cmd.SetFirstKeyPos(3)
	if err := to.send(ctx, cmd); err != nil {
		return nil, err
	}
	return cmd.Val(), nil
}
