package conformance

import (
	"bytes"
	"compress/gzip"
	"context"
	"database/sql"
	"fmt"
	"io"
	"regexp"
	"runtime/pprof"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// addresses are left out of profiles: they show no contents, and some have the digits of a
// part of a key.
var addresses = regexp.MustCompile(`0x[0-9a-f]+`)

// writeProfiles writes all profiles of package pprof with their labels, in every form.
// Among them is a dump of all goroutines.
func writeProfiles(t *testing.T, w io.Writer) {
	for _, p := range pprof.Profiles() {
		for debug := range 3 {
			var b bytes.Buffer
			require.NoError(t, p.WriteTo(&b, debug))
			text := b.Bytes()
			if debug == 0 {
				z, err := gzip.NewReader(&b)
				require.NoError(t, err)
				text, err = io.ReadAll(z)
				require.NoError(t, err)
			}
			w.Write(addresses.ReplaceAll(text, nil))
		}
	}
}

// writeRedis writes every key and value of a Redis.
func writeRedis(t *testing.T, c *redis.Client, w io.Writer) {
	ctx := context.Background()
	for keys := c.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		key := keys.Val()
		fmt.Fprintln(w, key)
		switch kind := c.Type(ctx, key).Val(); kind {
		case "string":
			fmt.Fprintln(w, c.Get(ctx, key).Val())
		case "hash":
			fmt.Fprintln(w, c.HGetAll(ctx, key).Val())
		case "none": // it has expired
		default:
			t.Fatalf("Redis holds a %s", kind)
		}
	}
}

// writeDatabase writes every column of every table. query returns the names of tables.
func writeDatabase(t *testing.T, db *sql.DB, query string, w io.Writer) {
	rows, err := db.Query(query)
	require.NoError(t, err)
	var tables []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	require.NoError(t, rows.Err())
	require.NotEmpty(t, tables)
	for _, table := range tables {
		rows, err := db.Query(`SELECT * FROM "` + table + `"`)
		require.NoError(t, err)
		writeRows(t, rows, w)
	}
}

func writeRows(t *testing.T, rows *sql.Rows, w io.Writer) {
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(t, err)
	for rows.Next() {
		values, to := make([]any, len(columns)), make([]any, len(columns))
		for i := range to {
			to[i] = &values[i]
		}
		require.NoError(t, rows.Scan(to...))
		for _, v := range values {
			if b, ok := v.([]byte); ok {
				v = string(b) // the bytes themselves, not a list of numbers
			}
			fmt.Fprintln(w, v)
		}
	}
	require.NoError(t, rows.Err())
}
