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
	"github.com/senderauth/senderauth/contrib/otelsender"
	"github.com/senderauth/senderauth/contrib/redislimit"
)

// openLimiter returns a limiter that keeps the buckets in Redis, shared with other
// programs, or in the memory of this one.
func openLimiter(set settings, telemetry *otelsender.Telemetry, log *slog.Logger) (_ senderauth.Limiter, done func(), _ error) {
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
			telemetry.SetFallback(m == redislimit.Fallback)
			switch {
			case m == redislimit.Fallback:
				log.Warn("limits are not shared: Redis is unreachable", "share", fmt.Sprintf("1/%d", set.instances), "error", err)
			case err != nil:
				log.Warn("limits are shared, but may not hold", "error", err)
			default:
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

// redisClient parses a redis://, rediss:// or unix:// URL. More nodes of a Cluster
// follow after commas: redis://one:6379,two:6379,three:6379. It does not connect.
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

// checkAddr reports an address that can never work, even if Redis is up.
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

// withoutURL removes the URL from an error, because it may hold a password.
func withoutURL(err error) error {
	var malformed *url.Error
	if errors.As(err, &malformed) {
		return malformed.Err
	}
	return err
}

// redisLog logs the messages of the Redis client, such as lost connections, at level
// DEBUG.
type redisLog struct{ *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.DebugContext(ctx, "redis", "message", fmt.Sprintf(format, v...))
}
