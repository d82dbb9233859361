package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// A listing is how a list of values is printed.
type listing[T any] struct {
	header []string
	row    func(T) []string
	json   func(v T, unreadable error) any
}

// printAll prints a table or one JSON array, in constant memory. It prints what
// can be read of a row, and says on standard error what cannot.
func printAll[T any](a *app, all iter.Seq2[T, error], l listing[T]) error {
	out := bufio.NewWriter(a.out)
	t, array := table{out: out}, jsonArray{out: out}
	t.add(l.header)
	unreadable := 0
	p := a.progress("Reading", "rows")
	if isTerminal(a.out) { // where the rows show how far it is
		p.end()
	}
	defer p.end()
	for v, err := range all {
		p.add(1)
		if err != nil && !errors.Is(err, sqlkeys.ErrUnreadable) {
			return errors.Join(err, out.Flush())
		}
		if err != nil {
			unreadable++
			fmt.Fprintln(p, "senderkeys: "+forPeople.Replace(err.Error()))
		}
		if a.json {
			err = array.add(l.json(v, err))
		} else {
			err = t.add(l.row(v))
		}
		if err != nil {
			return err
		}
	}
	if a.json {
		array.end()
	} else {
		t.end()
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if unreadable > 0 {
		return fmt.Errorf("rows that cannot be read in full: %d", unreadable)
	}
	return nil
}

// A table aligns columns. It holds back a block of rows to find their widths.
// A column never gets narrower from block to block.
type table struct {
	out    *bufio.Writer
	block  [][]string
	widths []int // in characters
}

const tableBlock = 500

func (t *table) add(row []string) error {
	t.widths = append(t.widths, make([]int, len(row)-len(t.widths))...)
	for i, cell := range row {
		row[i] = printable(cell)
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(row[i]))
	}
	if t.block = append(t.block, row); len(t.block) < tableBlock {
		return nil
	}
	return t.end()
}

// end writes the block.
func (t *table) end() error {
	for _, row := range t.block {
		last := len(row) - 1
		for i, cell := range row[:last] {
			t.out.WriteString(cell + strings.Repeat(" ", t.widths[i]+2-utf8.RuneCountInString(cell)))
		}
		if _, err := t.out.WriteString(row[last] + "\n"); err != nil {
			return err
		}
	}
	t.block = t.block[:0]
	return nil
}

// A jsonArray writes the elements of an array as [json.Encoder] does with an
// indent of two spaces.
type jsonArray struct {
	out   *bufio.Writer
	begun bool
}

func (j *jsonArray) add(v any) error {
	b, err := json.MarshalIndent(v, "  ", "  ")
	if err != nil {
		return err
	}
	before := "[\n  "
	if j.begun {
		before = ",\n  "
	}
	j.begun = true
	j.out.WriteString(before)
	_, err = j.out.Write(b)
	return err
}

func (j *jsonArray) end() error {
	end := "[]\n"
	if j.begun {
		end = "\n]\n"
	}
	_, err := j.out.WriteString(end)
	return err
}
