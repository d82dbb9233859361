package redislimit

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed bucket.lua
var bucketLua string

//go:embed take.lua
var takeLua string

var takeScript = newScript(takeLua)

type script struct{ text, sha string }

func newScript(text string) *script {
	text = bucketLua + text
	sum := sha1.Sum([]byte(text))
	return &script{text: text, sha: hex.EncodeToString(sum[:])}
}

// once is a command that the client must not send again by itself: what is
// sent again is decided here, where it is known whether it does harm.
type once struct{ *redis.IntSliceCmd }

func (once) NoRetry() bool { return true }

// run runs a script with one round trip. It tries a second time, once, where
// Redis did not know the script, where this Redis would not do it, and, with
// again, where the connection broke and nobody knows whether it was done.
func (s *script) run(ctx context.Context, n *line, keys, args []string, again bool) ([]int64, error) {
	words := make([]any, 3, 3+len(keys)+len(args))
	words[0], words[1], words[2] = "evalsha", s.sha, len(keys)
	for _, k := range keys {
		words = append(words, k)
	}
	for _, a := range args {
		words = append(words, a)
	}
	reply, err := n.ints(ctx, words)
	switch {
	case err == nil:
		return reply, nil
	case redis.HasErrorPrefix(err, "NOSCRIPT"):
		words[0], words[1] = "eval", s.text
	case notDone(err), again && broken(err):
	default:
		return nil, err
	}
	return n.ints(ctx, words)
}

// ints sends a command that answers with numbers. Its first key is the fourth
// word.
func (n *line) ints(ctx context.Context, words []any) ([]int64, error) {
	cmd := once{redis.NewIntSliceCmd(ctx, words...)}
	cmd.SetFirstKeyPos(3)
	if err := n.send(ctx, cmd); err != nil {
		return nil, err
	}
	return cmd.Val(), nil
}

// notDone reports an answer of a Redis that did nothing, where the next one to
// be asked may be another: after a failover, or during a resharding.
func notDone(err error) bool {
	for _, prefix := range []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// broken reports a connection that ended.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() && op.Op != "dial"
}

// misused reports an answer of a Redis that is well: the key holds something
// that is none of ours.
func misused(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGTYPE") || strings.Contains(err.Error(), "NOBUCKET")
}
