package process

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// childAttr asks the kernel to signal the child when the thread that starts it
// dies, and gives the child a process group of its own, so that an interrupt
// typed at the terminal reaches the test first, and not the servers under it.
func childAttr(credential *syscall.Credential, deathSignal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: deathSignal, Credential: credential}
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

type startRequest struct {
	cmd    *exec.Cmd
	result chan error
}

// starter is the goroutine that starts all children. Pdeathsig counts the
// death of the starting thread, not of the process, and the Go runtime ends
// threads when it likes (always when a goroutine that locked one returns), so
// all children are started from one thread that is locked and never ends.
var starter = sync.OnceValue(func() chan<- startRequest {
	requests := make(chan startRequest)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.result <- r.cmd.Start()
		}
	}()
	return requests
})

func startOnLastingThread(cmd *exec.Cmd) error {
	r := startRequest{cmd: cmd, result: make(chan error)}
	starter() <- r
	return <-r.result
}
