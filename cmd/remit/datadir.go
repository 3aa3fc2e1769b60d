package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"remit"
	"remit/activity"
	"remit/store/sqlstore"
)

// dataDir is where a command keeps what it learns.
type dataDir struct {
	Store *sqlstore.Store

	// Key is the installation's key, under which secrets are fingerprinted.
	// It never leaves the data directory.
	Key []byte

	path      string
	ephemeral bool
	dead      *activity.DeadLetters // nil until it is asked for
}

// openDataDir opens the data directory that the flags name. When none is named
// and ephemeral is allowed, it is a temporary one that Close removes.
func openDataDir(ctx context.Context, f *globalFlags, ephemeral bool) (*dataDir, error) {
	d := &dataDir{path: f.dataDir}
	if d.path == "" {
		if !ephemeral {
			return nil, remit.Errorf(remit.Invalid, "open data directory",
				"none is named: set --data-dir or REMIT_DATA_DIR to where `remit scan` or `remit serve` keeps its data")
		}
		path, err := os.MkdirTemp("", "remit-*")
		if err != nil {
			return nil, remit.Errorf(remit.Unavailable, "make a temporary directory", "%w", err)
		}
		d.path, d.ephemeral = path, true
	} else if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, remit.Errorf(remit.Unavailable, "make data directory",
			"%w: name a directory that you may write with --data-dir", err)
	}
	var err error
	if d.Key, err = installationKey(filepath.Join(d.path, "installation.key")); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	url := f.store
	if url == "" {
		url = filepath.Join(d.path, "remit.db")
	}
	if d.Store, err = sqlstore.Open(ctx, url); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close closes the store and removes a temporary directory.
func (d *dataDir) Close() error {
	var err error
	if d.dead != nil {
		err = d.dead.Close()
	}
	if d.Store != nil {
		err = errors.Join(err, d.Store.Close())
	}
	if d.ephemeral {
		err = errors.Join(err, os.RemoveAll(d.path))
	}
	return err
}

// deadLetters opens the file of events of which nothing could be made. It is not
// safe for concurrent use; what it returns is.
func (d *dataDir) deadLetters() (*activity.DeadLetters, error) {
	if d.dead == nil {
		dead, err := activity.OpenDeadLetters(filepath.Join(d.path, "dead-letters.jsonl"), nil)
		if err != nil {
			return nil, err
		}
		d.dead = dead
	}
	return d.dead, nil
}

// installationKey reads the key in a file, or makes it when there is none. Of
// several processes that start at once one makes it and all use it: the key is
// written aside and linked into place, so it is never seen half written.
func installationKey(path string) ([]byte, error) {
	const op = "read installation key"
	for range 3 {
		text, err := os.ReadFile(path)
		if err == nil {
			key, err := hex.DecodeString(strings.TrimSpace(string(text)))
			if err != nil || len(key) != 32 {
				return nil, remit.Errorf(remit.Invalid, op, "%s does not hold 64 hexadecimal digits: "+
					"put the original file back, or remove it and lose the comparison with older fingerprints", path)
			}
			return key, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, remit.Errorf(remit.Unavailable, op, "%w", err)
		}
		if err := makeKey(path); err != nil {
			return nil, remit.Errorf(remit.Unavailable, "make installation key", "%w", err)
		}
	}
	return nil, remit.Errorf(remit.Unavailable, op, "%s disappears as soon as it is made", path)
}

func makeKey(path string) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key)                                              // never fails (crypto/rand)
	f, err := os.CreateTemp(filepath.Dir(path), ".installation-key-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
