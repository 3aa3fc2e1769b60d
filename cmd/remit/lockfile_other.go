//go:build !unix

package main

import (
	"errors"
	"io/fs"
	"os"

	"remit"
)

// lockFile makes sure that one process at a time does what the file stands for;
// busy tells the others. A file that a killed process left behind has to be
// removed by hand.
func lockFile(path, op, busy string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, remit.Errorf(remit.Conflict, op, "%s; if there is none, remove %s", busy, path)
	}
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	return func() { f.Close(); os.Remove(path) }, nil
}
