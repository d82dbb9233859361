package redislimit

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCRC16IsThatOfACluster(t *testing.T) {
	for tag, slot := range map[string]uint16{"foo": 12182, "bar": 5061, "123456789": 12739, "": 0} {
		require.Equal(t, slot, crc16(tag)%16384, tag)
	}
}
