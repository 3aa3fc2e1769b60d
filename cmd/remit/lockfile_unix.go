//go:build unix

package main

import (
	"errors"
	"os"
	"syscall"

	"remit"
)

// lockFile makes sure that one process at a time does what the file stands for;
// busy tells the others. The lock ends with the process.
func lockFile(path, op, busy string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, remit.Errorf(remit.Conflict, op, "%s", busy)
		}
		return nil, remit.Errorf(remit.Unavailable, op, "%s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
