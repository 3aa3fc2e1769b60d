package main

import (
	"os"

	"github.com/spf13/cobra"

	"remit"
	"remit/detect"
	"remit/detect/rules"
	"remit/detect/sigma"
)

// rulesFlags choose the detection rules.
type rulesFlags struct {
	dirs      []string
	noBuiltIn bool
}

func (f *rulesFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.dirs, "rules", nil, "also the Sigma rules in this `directory`, such as a checkout of SigmaHQ; may be repeated")
	cmd.Flags().BoolVar(&f.noBuiltIn, "no-built-in-rules", false, "leave the built-in rules out")
}

// ruleOptions are what rules are compiled for.
func ruleOptions() sigma.Options {
	return sigma.Options{Attributed: detect.Attributed, Aliases: fieldAliases}
}

// load reads the rules; faulty are the files that hold none.
func (f *rulesFlags) load() (all []*sigma.Rule, faulty []error, err error) {
	if !f.noBuiltIn {
		if all, err = rules.Load(); err != nil {
			return nil, nil, err
		}
	}
	for _, dir := range f.dirs {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			return nil, nil, remit.Errorf(remit.Invalid, "", "--rules %s is not a directory: name one with Sigma rules in it", dir)
		}
		some, errs := sigma.LoadDir(dir)
		all, faulty = append(all, some...), append(faulty, errs...)
	}
	return all, faulty, nil
}

// engine compiles the rules. What cannot be evaluated comes back beside it.
func (f *rulesFlags) engine() (*sigma.Engine, []sigma.Unsupported, []error, error) {
	all, faulty, err := f.load()
	if err != nil {
		return nil, nil, nil, err
	}
	engine, unsupported := sigma.Compile(all, ruleOptions())
	return engine, unsupported, faulty, nil
}
