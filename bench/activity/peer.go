package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// peer times audit2rbac on the same log and on one core: what people use today
// to turn an audit log into the rights that one subject used. It reads the whole
// log for each subject, attributes nothing and detects nothing.
//
//	go install github.com/liggitt/audit2rbac/cmd/audit2rbac@v0.10.0
func peer(ctx context.Context, program, log, user string, events int64) error {
	cmd := exec.CommandContext(ctx, program, "--filename", log, "--user", user)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	wall := time.Since(begin)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	most := uint64(0)
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		most = uint64(usage.Maxrss) << 10
	}
	fmt.Printf("\naudit2rbac, one subject (%s): %.0f events/s, %.2f µs of processor an event, %d MB\n",
		user, float64(events)/wall.Seconds(), float64(cpu.Microseconds())/float64(events), most>>20)
	return nil
}
