package redislimit

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Config configures [New]. Only Instances is required.
type Config struct {
	_ [0]func()

	// Instances is how many instances share the limits. While Redis is unreachable,
	// each of them admits an equal share of every limit. Leave it zero if
	// CountInstances is set. It is not needed with FailClosed.
	Instances int
	// CountInstances returns how many instances share the limits, if that changes.
	// The limiter calls it for each decision that it makes without Redis. It must
	// not block. A result below 1 counts as 1. Nil means Instances.
	CountInstances func() int

	// Lease turns lease mode on: an instance takes tokens from Redis ahead of need
	// and decides from memory. It takes more for a faster sender, and none for a
	// slow one. Leased tokens lapse after this time, or after a quarter of the time
	// that fills the bucket if that is less. Zero means exact mode, and 100
	// milliseconds is a good lease. The fleet never admits more than in exact mode.
	// It may admit less, because some instances hold tokens that others need.
	Lease time.Duration

	// Timeout is how long a decision waits for Redis, or up to a tenth less. Zero
	// means 50 milliseconds. It must cover a round trip, or Redis is never used. Four
	// round trips leave room. It need not cover the opening of a connection, which
	// the limiter does in the background.
	//
	// A decision may wait twice: in lease mode, first for a call in flight for the
	// same sender and then for its own, and in either mode if this instance was
	// suspended during the call.
	Timeout time.Duration
	// Failures is the number of failed calls in a row after which the limiter
	// stops calling Redis. Zero means 5.
	Failures int
	// ProbeEvery is how often the limiter then probes Redis, until Redis runs a
	// script within Timeout. Zero means 250 milliseconds.
	ProbeEvery time.Duration
	// FailClosed makes Take return ErrUnavailable if Redis cannot decide,
	// instead of deciding locally. The guard's own FailClosed then answers 503.
	FailClosed bool
	// OnMode is called at each change of mode. It must neither block nor call the
	// limiter. Nil means that nobody is told. Its arguments are
	//
	//   - Fallback and the error of the last failed call, when the limiter stops
	//     calling Redis;
	//   - Shared and nil, when it resumes;
	//   - Shared and an error that wraps ErrEvicts, when it finds that Redis may
	//     evict buckets.
	OnMode func(m Mode, err error)

	// Prefix starts each key in Redis: {Prefix:v1:sender}:name, or of an allowance
	// {Prefix:v1:sender}month:name and day:name. Empty means "senderauth". Services that share a Redis must each have a prefix of their
	// own. With the same prefix, limits of the same name are one bucket for each
	// sender ID, so the services spend each other's quota.
	Prefix string
}

// A Mode is how an instance decides.
type Mode string

const (
	// Shared means that Redis decides.
	Shared Mode = "shared"
	// Fallback means that the instance decides by its share of each limit, or
	// returns ErrUnavailable with FailClosed, because Redis is unreachable.
	Fallback Mode = "fallback"
)

// validate reports every mistake at once.
func validate(client redis.UniversalClient, cfg *Config) error {
	errs := []error{validateClient(client)}
	report := func(format string, args ...any) { errs = append(errs, fmt.Errorf("redislimit: "+format, args...)) }
	if cfg.Instances < 1 && cfg.CountInstances == nil && !cfg.FailClosed || cfg.Instances < 0 {
		report("Config.Instances is %d: how many instances share the limits?", cfg.Instances)
	}
	if cfg.Instances > 0 && cfg.CountInstances != nil {
		report("Config.Instances and Config.CountInstances are both set")
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Lease", cfg.Lease}, {"Timeout", cfg.Timeout}, {"ProbeEvery", cfg.ProbeEvery}} {
		if d.value < 0 {
			report("Config.%s %v is below 0", d.field, d.value)
		}
	}
	if cfg.Failures < 0 || cfg.Failures > math.MaxInt32 {
		report("Config.Failures %d is not in 0..%d", cfg.Failures, math.MaxInt32)
	}
	if strings.ContainsAny(cfg.Prefix, "{}") {
		report("Config.Prefix %q has a brace, which marks the part of a key that chooses the slot of a Cluster", cfg.Prefix)
	}
	return errors.Join(errs...)
}

func validateClient(client redis.UniversalClient) error {
	if v := reflect.ValueOf(client); !v.IsValid() {
		return errors.New("redislimit: New: the client is nil")
	} else if v.Kind() == reflect.Pointer && v.IsNil() {
		return fmt.Errorf("redislimit: New: the client is a nil %T", client)
	}
	timeouts := true
	switch c := client.(type) {
	case *redis.Client:
		timeouts = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		timeouts = c.Options().ContextTimeoutEnabled
	case *redis.Ring:
		timeouts = c.Options().ContextTimeoutEnabled
	}
	if !timeouts {
		return errors.New("redislimit: New: the client's ContextTimeoutEnabled is false: a call could take its ReadTimeout")
	}
	return nil
}
