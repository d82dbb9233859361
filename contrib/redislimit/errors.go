package redislimit

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// The functions of this file tell from an error whether the script ran, and whether Redis
// is at fault.

// notDone reports an error of a server that did not run the script. A retry may reach
// another server after a failover.
func notDone(err error) bool { return begins(err, "READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN") }

// moving reports an error of a server whose slot moves: it does not hold the slot, or only
// some of its keys. Such a server did not run the script.
func moving(err error) bool { return begins(err, "MOVED", "ASK", "TRYAGAIN") }

func begins(err error, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return redis.HasErrorPrefix(err, p) })
}

// broken reports a connection that ended.
func broken(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() && op.Op != "dial"
}

// unsent reports an error of a call that Redis certainly did not run.
func unsent(err error) bool { return err != nil && !broken(err) && !timedOut(err) }

// misused reports an error of a healthy Redis: the key of a bucket holds
// something else.
func misused(err error) bool {
	return redis.HasErrorPrefix(err, "WRONGTYPE") || strings.Contains(err.Error(), "NOBUCKET")
}
