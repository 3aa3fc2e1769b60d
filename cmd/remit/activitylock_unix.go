//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"

	"remit"
)

// lockActivity makes sure that one process at a time writes activity into a data
// directory. The lock ends with the process.
func lockActivity(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, "lock activity", "%w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, remit.Errorf(remit.Conflict, "lock activity",
				"another process writes activity into this data directory: wait until its import has ended, or send the events to the running `remit serve`")
		}
		return nil, remit.Errorf(remit.Unavailable, "lock activity", "%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
