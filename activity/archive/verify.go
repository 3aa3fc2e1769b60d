package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"remit"
)

// Verify reads files and compares their checksums with the manifest's. What it
// returns are the ones that are missing or changed, and why; the error is only
// ctx's. It reads about 1 GB/s and changes nothing.
func (a *Archive) Verify(ctx context.Context, files []File) ([]Lost, error) {
	var lost []Lost
	for _, f := range files {
		err := a.check(ctx, f, true)
		if ctx.Err() != nil {
			return lost, ctx.Err()
		}
		if err != nil {
			lost = append(lost, Lost{f, err.Error()})
		}
	}
	return lost, nil
}

// verify is check with the whole contents, for one who is about to rely on it.
func (a *Archive) verify(ctx context.Context, f File) error {
	err := a.check(ctx, f, true)
	if err == nil || ctx.Err() != nil {
		return err
	}
	return damaged(f, err)
}

// check looks whether a file is what the manifest says.
func (a *Archive) check(ctx context.Context, f File, contents bool) error {
	name, err := a.path(f.Path)
	if err != nil {
		return err
	}
	file, err := os.Open(name)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return remit.Errorf(remit.Conflict, "verify archive", "%s is gone", f.Path)
		}
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != f.Bytes {
		return fmt.Errorf("it has %d bytes and should have %d", info.Size(), f.Bytes)
	}
	footer, err := footerSum(file, f.Bytes)
	if err != nil {
		return err
	}
	if footer != f.Footer {
		return errors.New("its footer is not the one that was written")
	}
	if !contents {
		return nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, contextReader{ctx, file}); err != nil {
		return err
	}
	if sum := "sha256:" + hex.EncodeToString(hash.Sum(nil)); sum != f.Checksum {
		return fmt.Errorf("its checksum is %s and should be %s", sum, f.Checksum)
	}
	return nil
}

// contextReader ends a long read when nobody waits for it any more.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
