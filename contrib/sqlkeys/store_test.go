package sqlkeys_test

import (
	"database/sql"
	"database/sql/driver"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

type otherDriver struct{}

func (otherDriver) Open(string) (driver.Conn, error) { return nil, driver.ErrBadConn }

var registerOther = sync.OnceFunc(func() { sql.Register("other", otherDriver{}) })

func TestOpenReportsEveryMistake(t *testing.T) {
	registerOther()
	other, err := sql.Open("other", "")
	require.NoError(t, err)
	defer other.Close()
	_, err = sqlkeys.Open(t.Context(), other, sqlkeys.Config{
		Peppers: [][]byte{[]byte("0123456789abcdef"), []byte("short"), []byte("0123456789abcdef")},
		Prefix:  "a_b",
	})
	require.EqualError(t, err, "sqlkeys: the driver sqlkeys_test.otherDriver is neither github.com/jackc/pgx/v5/stdlib nor modernc.org/sqlite\n"+
		"sqlkeys: Config.Peppers[1]: invalid: 5 bytes, fewer than 16\n"+
		"sqlkeys: Config.Peppers[2]: invalid: it repeats an earlier pepper\n"+
		`sqlkeys: Config.Prefix "a_b": invalid: not 1 to 32 ASCII letters and digits`)
	require.ErrorIs(t, err, sqlkeys.ErrInvalid)
	_, err = sqlkeys.Open(t.Context(), nil, sqlkeys.Config{})
	require.EqualError(t, err, "sqlkeys: the database is nil")
	require.EqualError(t, sqlkeys.Migrate(t.Context(), nil), "sqlkeys: the database is nil")
}
