//go:build !unix

package main

import (
	"errors"
	"io/fs"
	"os"

	"remit"
)

// lockActivity makes sure that one process at a time writes activity into a data
// directory. A file that a killed process left behind has to be removed by hand.
func lockActivity(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, remit.Errorf(remit.Conflict, "lock activity", "another process writes activity into this data directory; if none does, remove %s", path)
	}
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "lock activity", "%w", err)
	}
	return func() { f.Close(); os.Remove(path) }, nil
}
