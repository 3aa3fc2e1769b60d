package main

import (
	"fmt"
	"os"
	"runtime/pprof"
)

// startProfile writes a processor profile of the whole command into the file
// that REMIT_CPUPROFILE names; it is for those who measure Remit.
func startProfile() (stop func()) {
	path := os.Getenv("REMIT_CPUPROFILE")
	if path == "" {
		return func() {}
	}
	file, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "remit: no profile:", err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close()
	}
}
