// Package file is the destination of new secrets that a program reads from a file.
package file

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"remit"
	"remit/connector"
)

// maxSize is the largest file that is read to verify it.
const maxSize = 1 << 20

// File is a file that holds a part of a secret. It implements
// [connector.Destination]. A reader sees the old content or the new, never a part
// of it.
type File struct{ path, part string }

var _ connector.Destination = (*File)(nil)

// Open returns the destination at an absolute path, for a part of a secret, "" for
// its main one. It opens nothing.
func Open(path, part string) (*File, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, remit.Errorf(remit.Invalid, "read destination", "%q is no absolute path without detours: write file:/PATH", path)
	}
	return &File{path, part}, nil
}

func (f *File) ref() remit.Ref { return remit.Ref{Kind: "File", Name: f.path} }

// found is what is at the path: the file's own path behind links, and what it is;
// nil when there is none yet.
func (f *File) found(op string) (path string, info fs.FileInfo, err error) {
	path, err = filepath.EvalSymlinks(f.path)
	switch {
	case err == nil:
		info, err = os.Lstat(path)
	case errors.Is(err, fs.ErrNotExist):
		if _, lerr := os.Lstat(f.path); lerr == nil {
			return "", nil, remit.Errorf(remit.Unsupported, op, "%s is a link to what is not there", f.path)
		}
		// The directory must be there.
		path = f.path
		if _, derr := os.Stat(filepath.Dir(path)); derr != nil {
			return "", nil, explain(op, derr)
		}
		return path, nil, nil
	}
	if err != nil {
		return "", nil, explain(op, err)
	}
	if !info.Mode().IsRegular() {
		return "", nil, remit.Errorf(remit.Unsupported, op, "%s is no regular file", f.path)
	}
	return path, info, nil
}

func explain(op string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return remit.Errorf(remit.NotFound, op, "%w", err)
	case errors.Is(err, fs.ErrPermission):
		return remit.Errorf(remit.Forbidden, op, "%w", err)
	}
	return remit.Errorf(remit.Unavailable, op, "%w", err)
}

// mode is that of the new file: for its owner, and for its group to read where the
// old one was.
func mode(info fs.FileInfo) fs.FileMode {
	if info == nil {
		return 0o600
	}
	return 0o600 | info.Mode().Perm()&0o040
}

// Plan implements [connector.Destination].
func (f *File) Plan(ctx context.Context, _ connector.Delivery) (connector.PlannedDelivery, error) {
	path, info, err := f.found("plan delivery")
	if err != nil || ctx.Err() != nil {
		return connector.PlannedDelivery{}, errors.Join(err, ctx.Err())
	}
	step := remit.Step{Object: f.ref(), Does: fmt.Sprintf("Replace %s by a file with the new secret, at once and durably, with mode %04o.", path, mode(info))}
	if info != nil {
		step.Diff = "- " + path + ": the old secret\n"
	}
	step.Diff += fmt.Sprintf("+ %s: the new secret, mode %04o\n", path, mode(info))
	return connector.PlannedDelivery{Step: step, Why: []string{
		fmt.Sprintf("Who reads %s only at his start has to be started again within the grace; Remit cannot do that.", path),
	}}, nil
}

type receipt struct {
	Digest string `json:"digest"`
}

// Deliver implements [connector.Destination].
func (f *File) Deliver(_ context.Context, _ remit.Step, l connector.Delivery) (json.RawMessage, error) {
	const op = "deliver"
	value, err := l.Secret.Part(f.part)
	if err != nil {
		return nil, err
	}
	path, info, err := f.found(op)
	if err != nil {
		return nil, err
	}
	// The name is always the same, so that what a crash left is removed by the next
	// delivery.
	dir := filepath.Dir(path)
	aside := filepath.Join(dir, "."+filepath.Base(path)+".remit-new")
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, explain(op, err)
	}
	// It must not be there, nor be a link.
	file, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, explain(op, err)
	}
	defer os.Remove(aside)
	err = own(file, info)
	if err == nil {
		err = file.Chmod(mode(info))
	}
	if err == nil {
		_, err = file.Write(value)
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(aside, path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return nil, explain(op, err)
	}
	return json.Marshal(receipt{connector.SecretDigest(value)})
}

// Verify implements [connector.Destination].
func (f *File) Verify(_ context.Context, _ remit.Step, text json.RawMessage) error {
	const op = "verify delivery"
	var got receipt
	if err := json.Unmarshal(text, &got); err != nil || got.Digest == "" {
		return remit.Errorf(remit.Invalid, op, "the receipt of %s cannot be read: %w", f.path, err)
	}
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return remit.Errorf(remit.Conflict, op, "%s is gone", f.path)
	} else if err != nil {
		return explain(op, err)
	}
	defer file.Close()
	text, err = io.ReadAll(io.LimitReader(file, maxSize))
	defer clear(text)
	if err != nil {
		return explain(op, err)
	}
	if !connector.MatchesDigest(got.Digest, text) {
		return remit.Errorf(remit.Conflict, op, "%s does not hold what was delivered: somebody else has written it since", f.path)
	}
	return nil
}

// Restore implements [connector.Destination].
func (f *File) Restore(context.Context, remit.Step) error {
	return remit.Errorf(remit.Unsupported, "restore", "%s has not kept what it held before", f.path)
}
