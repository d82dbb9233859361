package demo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/senderauth/senderauth"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

// openLimiter returns where the buckets are kept: in Redis, for all programs
// that use it, or in the memory of this one.
func openLimiter(set settings, log *slog.Logger) (_ senderauth.Limiter, done func(), _ error) {
	if set.redis == "" {
		return senderauth.NewMemoryLimiter(senderauth.MemoryLimiterConfig{}), func() {}, nil
	}
	redis.SetLogger(redisLog{log})
	client, err := redisClient(set.redis)
	if err != nil {
		return nil, nil, fmt.Errorf("-redis: %w", err)
	}
	limiter, err := redislimit.New(client, redislimit.Config{
		Instances: set.instances,
		Timeout:   set.redisTimeout,
		OnMode: func(m redislimit.Mode, err error) {
			if m == redislimit.Fallback {
				log.Warn("limits are not shared: Redis is unreachable", "share", fmt.Sprintf("1/%d", set.instances), "error", err)
			} else {
				log.Info("limits are shared again")
			}
		},
	})
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return limiter, func() { limiter.Close(); client.Close() }, nil
}

// redisClient reads a URL of redis://, rediss:// or unix://, and of a Cluster
// the further nodes after commas: redis://one:6379,two:6379,three:6379. It does
// not connect.
func redisClient(source string) (redis.UniversalClient, error) {
	first, more, isCluster := strings.Cut(source, ",")
	if !isCluster {
		opts, err := redis.ParseURL(first)
		if err != nil {
			return nil, withoutURL(err)
		}
		if opts.Network != "unix" {
			if err := checkAddr(opts.Addr); err != nil {
				return nil, err
			}
		}
		opts.ContextTimeoutEnabled = true
		return redis.NewClient(opts), nil
	}
	opts, err := redis.ParseClusterURL(first)
	if err != nil {
		return nil, withoutURL(err)
	}
	opts.Addrs = append(opts.Addrs, strings.Split(more, ",")...)
	for _, node := range opts.Addrs {
		if err := checkAddr(node); err != nil {
			return nil, fmt.Errorf("a node of the Cluster: %w", err)
		}
	}
	opts.ContextTimeoutEnabled = true
	return redis.NewClusterClient(opts), nil
}

// checkAddr finds what no start of Redis will mend.
func checkAddr(addr string) error {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return &net.AddrError{Err: "invalid port", Addr: addr}
	}
	return nil
}

// withoutURL takes the URL, which may hold a password, out of an error.
func withoutURL(err error) error {
	var malformed *url.Error
	if errors.As(err, &malformed) {
		return malformed.Err
	}
	return err
}

// redisLog is where the client tells of each connection that it loses.
type redisLog struct{ *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.DebugContext(ctx, "redis", "message", fmt.Sprintf(format, v...))
}
