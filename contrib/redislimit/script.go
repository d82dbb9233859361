package redislimit

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed bucket.lua
	bucketLua string
	//go:embed take.lua
	takeLua string
	//go:embed lease.lua
	leaseLua string

	takeScript  = newScript(takeLua)
	leaseScript = newScript(leaseLua)
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
// did not run it. If again is set, it also retries after a broken connection, when the
// script may have run.
func (p *script) run(ctx context.Context, to transport, keys, args []string, again bool) ([]int64, error) {
	words := make([]any, 3, 3+len(keys)+len(args))
	words[0], words[1], words[2] = "evalsha", p.sha, len(keys)
	for _, k := range keys {
		words = append(words, k)
	}
	for _, a := range args {
		words = append(words, a)
	}
	reply, err := ints(ctx, to, words)
	switch {
	case err == nil:
		return reply, nil
	case redis.HasErrorPrefix(err, "NOSCRIPT"):
		words[0], words[1] = "eval", p.text
	case notDone(err), again && broken(err):
	default:
		return nil, err
	}
	return ints(ctx, to, words)
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
