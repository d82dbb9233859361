package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

func (a *app) keyImport() *cobra.Command {
	var dryRun bool
	imp := &cobra.Command{
		Use:   "import",
		Short: "Import keys issued elsewhere, by their SHA-256, from standard input",
		Long: `Import keys issued elsewhere, by their SHA-256, from standard input.

Give CSV with a header, or a JSON object on each line. The fields are sha256 (in
hexadecimal; that of a UUID in lower case), sender, name, expires (a date or an
RFC 3339 time; empty means never), environment, key_id and scopes (separated by
spaces; empty means all). Only sha256 and sender are required. A sender that is
missing is created. A key that the sender has already is left as it is, so an
import may be repeated. A line that is wrong is reported and left out.`,
		Args: cobra.NoArgs,
		RunE: a.do(func(ctx context.Context, s *sqlkeys.Store, _ []string) error {
			return a.importAll(ctx, s, dryRun)
		}),
	}
	imp.Flags().BoolVar(&dryRun, "dry-run", false, "change nothing, and report what would happen")
	return imp
}

// importBatch is the number of keys in one transaction.
const importBatch = 1000

// An importRun adds up what becomes of the lines.
type importRun struct {
	*app
	store    *sqlkeys.Store
	progress *progress
	dryRun   bool
	earlier  *rehearsal // of a dry run
	keys     []sqlkeys.ImportKey
	lines    []int // of keys
	imported int
	existed  int
	wrong    int
}

func (a *app) importAll(ctx context.Context, s *sqlkeys.Store, dryRun bool) error {
	records, err := readRecords(a.in)
	if err != nil {
		return err
	}
	run := &importRun{app: a, store: s, progress: a.progress("Importing", "keys"), dryRun: dryRun, earlier: newRehearsal()}
	defer run.progress.end()
	for r, err := range records {
		var k sqlkeys.ImportKey
		if err == nil {
			k, err = r.key()
		}
		if err != nil {
			run.report(r.line, err)
			continue
		}
		if run.keys, run.lines = append(run.keys, k), append(run.lines, r.line); len(run.keys) == importBatch {
			if err := run.flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := run.flush(ctx); err != nil {
		return err
	}
	return run.end()
}

// report says what is wrong with a line.
func (r *importRun) report(line int, err error) {
	r.wrong++
	fmt.Fprintf(r.progress, "senderkeys: line %d: %s\n", line, forPeople.Replace(err.Error()))
}

func (r *importRun) flush(ctx context.Context) error {
	results, err := r.store.Import(ctx, r.keys, r.dryRun)
	if err != nil {
		return err
	}
	for i, result := range results {
		if r.dryRun {
			result = r.earlier.result(r.keys[i], result)
		}
		switch {
		case result.Err != nil:
			r.report(r.lines[i], result.Err)
		case result.Created:
			r.imported++
		default:
			r.existed++
		}
	}
	r.progress.add(len(r.keys))
	r.keys, r.lines = r.keys[:0], r.lines[:0]
	return nil
}

func (r *importRun) end() error {
	r.progress.end()
	var err error
	if r.json {
		err = r.printJSON(struct {
			Imported int  `json:"imported"`
			Existed  int  `json:"existed"`
			Wrong    int  `json:"wrong"`
			DryRun   bool `json:"dry_run"`
		}{r.imported, r.existed, r.wrong, r.dryRun})
	} else {
		verb := "imported"
		if r.dryRun {
			verb = "would be imported"
		}
		_, err = fmt.Fprintf(r.out, "%s: %d\nexist already: %d\nwrong: %d\n", verb, r.imported, r.existed, r.wrong)
	}
	if r.wrong > 0 {
		err = errors.Join(err, fmt.Errorf("lines that are %w: %d", sqlkeys.ErrInvalid, r.wrong))
	}
	return err
}

// A record is one line of an import. Its errors do not show values, because somebody may
// have put a key where the digest belongs.
type record struct {
	line   int
	fields map[string]string
}

var importFields = []string{"sha256", "sender", "name", "expires", "environment", "key_id", "scopes"}

func (r record) key() (k sqlkeys.ImportKey, err error) {
	digest, err := hex.DecodeString(r.fields["sha256"])
	if err != nil || len(digest) != len(k.SHA256) {
		return k, fmt.Errorf("sha256: %w: not 64 hexadecimal digits", sqlkeys.ErrInvalid)
	}
	k.SHA256 = [32]byte(digest)
	if uuid.Validate(r.fields["sender"]) != nil {
		return k, fmt.Errorf("sender: %w: not a UUID", sqlkeys.ErrInvalid)
	}
	if env := r.fields["environment"]; env != "" && !slices.Contains(environments, env) {
		return k, fmt.Errorf("environment: %w: not one of %s", sqlkeys.ErrInvalid, strings.Join(environments, ", "))
	}
	k.SenderID, k.Name, k.ID = r.fields["sender"], r.fields["name"], r.fields["key_id"]
	k.Environment = sqlkeys.Environment(r.fields["environment"])
	if scopes := strings.Fields(r.fields["scopes"]); len(scopes) > 0 {
		k.Scopes = scopes
	}
	if k.ExpiresAt, err = parseFuture("expires", r.fields["expires"]); err != nil {
		return k, fmt.Errorf("expires: %w: want a date such as 2027-01-31 or an RFC 3339 time", sqlkeys.ErrInvalid)
	}
	return k, nil
}

// checkFields returns an error if a field is unknown.
func checkFields(names []string) error {
	for i, name := range names {
		if !slices.Contains(importFields, name) {
			return fmt.Errorf("field %d: %w: not one of %s", i+1, sqlkeys.ErrInvalid, strings.Join(importFields, ", "))
		}
	}
	return nil
}

// readRecords reads JSON lines if the first line is an object, and CSV otherwise.
func readRecords(in io.Reader) (iter.Seq2[record, error], error) {
	b := bufio.NewReader(in)
	if mark, _ := b.Peek(3); string(mark) == "\ufeff" {
		b.Discard(3)
	}
	first, err := b.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("standard input: %w: want CSV with a header, or JSON lines", sqlkeys.ErrInvalid)
	}
	if first[0] == '{' {
		return jsonRecords(b), nil
	}
	return csvRecords(b)
}

func jsonRecords(in *bufio.Reader) iter.Seq2[record, error] {
	return func(yield func(record, error) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(nil, 1<<20)
		n := 0
		for lines.Scan() {
			n++
			text := bytes.TrimSpace(lines.Bytes())
			if len(text) == 0 {
				continue
			}
			r := record{line: n}
			var err error
			var values map[string]*string
			if json.Unmarshal(text, &values) != nil {
				err = fmt.Errorf("%w: not a JSON object of strings", sqlkeys.ErrInvalid)
			}
			r.fields = make(map[string]string, len(values))
			for name, value := range values {
				err = errors.Join(err, checkFields([]string{name}))
				if value == nil { // no scopes, perhaps, and not all of them
					err = errors.Join(err, fmt.Errorf("%w: not a JSON object of strings: one is null", sqlkeys.ErrInvalid))
					continue
				}
				r.fields[name] = *value
			}
			if !yield(r, err) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(record{line: n + 1}, fmt.Errorf("%w: %w", sqlkeys.ErrInvalid, err))
		}
	}
}

func csvRecords(in io.Reader) (iter.Seq2[record, error], error) {
	c := csv.NewReader(in)
	header, err := c.Read()
	if err == nil {
		err = checkFields(header)
	}
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", csvError(err))
	}
	return func(yield func(record, error) bool) {
		for {
			values, err := c.Read()
			if err == io.EOF {
				return
			}
			if err != nil {
				var wrong *csv.ParseError
				if !errors.As(err, &wrong) {
					yield(record{}, err)
					return
				}
				if !yield(record{line: wrong.StartLine}, csvError(err)) {
					return
				}
				continue
			}
			r := record{fields: make(map[string]string, len(header))}
			r.line, _ = c.FieldPos(0)
			for i, name := range header {
				r.fields[name] = values[i]
			}
			if !yield(r, nil) {
				return
			}
		}
	}, nil
}

// csvError leaves the position out, which the line says.
func csvError(err error) error {
	var wrong *csv.ParseError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%w: %w", sqlkeys.ErrInvalid, wrong.Err)
	}
	return err
}
