package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/senderauth/senderauth/contrib/sqlkeys"
)

// An outFile receives a new key. The zero value stands for standard output.
type outFile struct{ *os.File }

// createOut creates the file of -out before there is a key, so that a wrong
// path changes nothing. Only its owner can read it.
func (a *app) createOut() (outFile, error) {
	if a.outPath == "" {
		return outFile{}, nil
	}
	f, err := os.OpenFile(a.outPath, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return outFile{}, fmt.Errorf("-out %q: the file %w", a.outPath, sqlkeys.ErrDuplicate)
	}
	if err != nil {
		return outFile{}, fmt.Errorf("-out: %w", err)
	}
	return outFile{f}, nil
}

func (f outFile) write(i sqlkeys.Issued) error {
	return errors.Join(writePair(f, i), f.Sync(), f.Close())
}

// discard removes the file.
func (f outFile) discard() {
	if f.File != nil {
		f.Close()
		os.Remove(f.Name())
	}
}
