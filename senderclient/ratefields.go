package senderclient

import (
	"net/http"
	"strconv"
	"strings"
)

// An item is a member of RateLimit or RateLimit-Policy: the name of a limit, and its
// integer parameters.
type item struct {
	name   string
	params map[string]int64
}

// parseItems reads a List of RFC 9651 whose members are Strings, and nothing from a field
// that is none.
func parseItems(h http.Header, field string) []item {
	p := parser{rest: strings.Join(h[field], ", ")}
	var items []item
	for p.space(); p.rest != ""; p.space() {
		if len(items) > 0 && !p.separator() {
			return nil
		}
		i, ok := p.item()
		if !ok {
			return nil
		}
		items = append(items, i)
	}
	return items
}

// A parser is at the start of rest.
type parser struct{ rest string }

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// skip goes past one character c, if it is the next.
func (p *parser) skip(c byte) bool {
	if p.rest == "" || p.rest[0] != c {
		return false
	}
	p.rest = p.rest[1:]
	return true
}

// take goes past all characters that belong to a set.
func (p *parser) take(in func(byte) bool) string {
	n := 0
	for n < len(p.rest) && in(p.rest[n]) {
		n++
	}
	taken := p.rest[:n]
	p.rest = p.rest[n:]
	return taken
}

// separator goes past a comma that another member follows.
func (p *parser) separator() bool {
	ok := p.skip(',')
	p.space()
	return ok && p.rest != ""
}

func (p *parser) item() (i item, ok bool) {
	if i.name, ok = p.text(); !ok {
		return i, false
	}
	i.params = make(map[string]int64)
	for p.skip(';') {
		p.rest = strings.TrimLeft(p.rest, " ")
		name := p.take(isKey)
		if name == "" || !isKeyStart(name[0]) {
			return i, false
		}
		delete(i.params, name) // the last one of a name counts
		if !p.skip('=') {
			continue
		}
		n, isInteger, ok := p.value()
		if !ok {
			return i, false
		}
		if isInteger {
			i.params[name] = n
		}
	}
	return i, true
}

// text reads a String.
func (p *parser) text() (string, bool) {
	if !p.skip('"') {
		return "", false
	}
	var s []byte
	for p.rest != "" {
		c := p.rest[0]
		p.rest = p.rest[1:]
		switch {
		case c == '"':
			return string(s), true
		case c == '\\':
			if p.rest == "" || p.rest[0] != '"' && p.rest[0] != '\\' {
				return "", false
			}
			c, p.rest = p.rest[0], p.rest[1:]
		case c < ' ' || c > '~':
			return "", false
		}
		s = append(s, c)
	}
	return "", false
}

// value reads the value of a parameter. Values of other types than Integer are skipped.
func (p *parser) value() (n int64, isInteger, ok bool) {
	if p.rest != "" && p.rest[0] == '"' {
		_, ok := p.text()
		return 0, false, ok
	}
	s := p.take(func(c byte) bool { return c > ' ' && c <= '~' && c != ';' && c != ',' && c != '"' })
	digits := strings.TrimPrefix(s, "-")
	if digits != "" && len(digits) <= 15 && strings.Trim(digits, "0123456789") == "" {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, true, err == nil
	}
	return 0, false, s != ""
}

func isKeyStart(c byte) bool { return 'a' <= c && c <= 'z' || c == '*' }

func isKey(c byte) bool {
	return isKeyStart(c) || '0' <= c && c <= '9' || c == '_' || c == '-' || c == '.'
}
