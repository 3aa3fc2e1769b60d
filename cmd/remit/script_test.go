package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(withoutBuilt{m}, map[string]func(){
		"remit": func() { os.Exit(Main()) },
	})
}

// withoutBuilt removes what the tests built.
type withoutBuilt struct{ *testing.M }

func (m withoutBuilt) Run() int {
	code := m.M.Run()
	if build.path != "" {
		os.RemoveAll(filepath.Dir(build.path))
	}
	return code
}

// TestScripts runs the commands of testdata/script as users type them.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KUBECONFIG", "")
			return nil
		},
	})
}
