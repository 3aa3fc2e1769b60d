//go:build unix && !linux

package process

import (
	"os/exec"
	"syscall"
)

// Without Pdeathsig the guard alone ends the servers of a killed test.

func childAttr(credential *syscall.Credential, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: credential}
}

func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func startOnLastingThread(cmd *exec.Cmd) error { return cmd.Start() }
