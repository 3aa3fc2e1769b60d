// Package rules holds the built-in detection rules: Sigma documents, one a file,
// in a folder for each system that they are about.
//
// Beside what Sigma defines, each rule has a block "remit:" that says what a
// finding of it tells ([Meta]), with tests that show when the rule matches and
// when it does not. [Test] runs them, for rules of users as well.
package rules

import (
	"embed"
	"errors"
	"io/fs"
	"sync"

	"remit/detect/sigma"
)

//go:generate go run ./reference

//go:embed kubernetes/*.yml aws/*.yml github/*.yml okta/*.yml gcp/*.yml azure/*.yml openbao/*.yml ai/*.yml
var documents embed.FS

// FS returns the documents, at <system>/<name of the rule>.yml.
func FS() fs.FS { return documents }

var load = sync.OnceValues(func() ([]*sigma.Rule, error) {
	all, faults := sigma.Load(documents)
	return all, errors.Join(faults...)
})

// Load returns the rules in the order of their files. They are read once and
// shared: the slice is the caller's, the rules are not. The error is a fault of
// the build.
func Load() ([]*sigma.Rule, error) {
	all, err := load()
	if err != nil {
		return nil, err
	}
	return append([]*sigma.Rule(nil), all...), nil
}
