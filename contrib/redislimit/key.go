package redislimit

import (
	"cmp"
	"strings"
)

// keyHead starts every key, up to the sender.
func keyHead(prefix string) string { return "{" + cmp.Or(prefix, "senderauth") + ":v1:" }

// key returns the name of a bucket in Redis. The hash tag puts all buckets of a
// sender into one slot of a Cluster.
func (l *Limiter) key(sender, name string) string { return l.head + escaped(sender) + "}:" + name }

// allowanceKey returns the name of a day's or a month's allowance in Redis. No bucket has it,
// because in the key of a bucket a colon follows the brace.
func (l *Limiter) allowanceKey(sender, unit, name string) string {
	return l.senderHead(sender) + unit + ":" + name
}

// senderHead starts every key of a sender.
func (l *Limiter) senderHead(sender string) string { return l.head + escaped(sender) + "}" }

// probeKey returns the key of the bucket that a probe takes from. No bucket has it, because in the key of a
// bucket a colon follows the brace.
func (l *Limiter) probeKey(sender string) string { return l.head + escaped(sender) + "}probe" }

// escaped keeps a sender's braces out of the hash tag.
func escaped(sender string) string {
	if strings.IndexByte(sender, '}') >= 0 || strings.IndexByte(sender, '%') >= 0 {
		return strings.NewReplacer("%", "%25", "}", "%7D").Replace(sender)
	}
	return sender
}
