//go:build !unix

package file

import (
	"io/fs"
	"os"
)

func own(*os.File, fs.FileInfo) error { return nil }

func syncDir(string) error { return nil }
