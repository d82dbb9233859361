package redislimit

import (
	"errors"
	"io"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The functions of this file tell from an error whether the script ran, and whether Redis
// is at fault.

// notDone reports an error of a server that did not run the script. A retry may reach
// another server, after a failover or while a slot moves.
func notDone(err error) bool {
	for _, prefix := range []string{"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// redirected reports an error of a server that does not hold the slot of the key.
func redirected(err error) bool {
	return redis.HasErrorPrefix(err, "MOVED") || redis.HasErrorPrefix(err, "ASK")
}

// broken reports a connection that ended.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() && op.Op != "dial"
}

// misused reports an error of a healthy Redis: the key of a bucket holds
// something else.
func misused(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGTYPE") || strings.Contains(err.Error(), "NOBUCKET")
}
