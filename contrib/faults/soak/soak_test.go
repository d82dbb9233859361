package main

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/senderauth/senderauth/contrib/internal/testservers"
	"github.com/senderauth/senderauth/contrib/internal/testservers/pgtest"
	"github.com/senderauth/senderauth/contrib/internal/testservers/redistest"
	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if given := os.Getenv(instanceEnv); given != "" {
		if err := runInstance(given); err != nil {
			panic(err)
		}
		return
	}
	testservers.Main(m)
}

// PostgreSQL and Redis die once each, under load. A busy machine may delay the instances
// by the bound, and what the caches remember lasts longer than that.
func TestNoAnswerIsWrong(t *testing.T) {
	postgres, redis := pgtest.New(t), redistest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := run(ctx, options{length: 20 * time.Second, rate: 200, every: 20 * time.Second, bound: 8 * time.Second, ttl: time.Minute},
		servers{postgres: postgres, postgresURL: postgres.URL(t), redis: redis})
	require.NoError(t, err)
	r.print(t.Output())
	require.NoError(t, r.verdict())
}
