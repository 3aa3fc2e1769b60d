package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
)

// readingFlags are those of the commands that answer from the store, or, where
// there is no data directory, from a scan that they make first.
type readingFlags struct {
	connectFlags
	judgeFlags
}

func (f *readingFlags) add(cmd *cobra.Command) {
	f.connectFlags.add(cmd)
	f.judgeFlags.add(cmd)
}

// open opens the data directory and tells which system the flags name, "" for
// all. Without a data directory it scans into a temporary one.
func (f *readingFlags) open(ctx context.Context, global *globalFlags) (*dataDir, remit.ID, error) {
	stored := global.dataDir != "" || global.store != ""
	data, err := openDataDir(ctx, global, true)
	if err != nil {
		return nil, "", err
	}
	system, err := f.read(ctx, global, data, stored)
	if err != nil {
		data.Close()
		return nil, "", err
	}
	return data, system, nil
}

func (f *readingFlags) read(ctx context.Context, global *globalFlags, data *dataDir, stored bool) (remit.ID, error) {
	if stored && len(f.from) == 0 {
		return systemNamed(ctx, data, f.Name)
	}
	c, err := readConfig(global)
	if err != nil {
		return "", err
	}
	source, err := f.connect(c, data.Key)
	if err != nil {
		return "", err
	}
	system, err := f.scan(ctx, data, c, source, time.Now, false)
	return system.ID, err
}

// systemNamed finds a system by name or ID; no name is all systems.
func systemNamed(ctx context.Context, data *dataDir, name string) (remit.ID, error) {
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return "", err
	}
	if len(systems) == 0 {
		return "", remit.Errorf(remit.NotFound, "read inventory",
			"the data directory holds no system yet: run `remit scan`, `remit serve` or `remit import activity` with it first")
	}
	if name == "" {
		return "", nil
	}
	var names []string
	for _, s := range systems {
		if s.Name == name || string(s.ID) == name {
			return s.ID, nil
		}
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return "", remit.Errorf(remit.NotFound, "find system", "no system %q: there are %s", name, strings.Join(names, ", "))
}
