//go:build unix

// Package process runs the servers of a test in a temporary directory, in a
// way that neither the servers nor the directory outlive the test, even when
// the test binary is killed with SIGKILL and runs no clean-up of its own.
//
// Two mechanisms work together, because neither is enough alone:
//
//   - On Linux the kernel signals each server when its parent dies
//     (Pdeathsig). It works at once and cannot be outrun.
//   - A guard, a shell that reads a pipe from the test binary, sees the pipe
//     close however the binary ended; it ends what is left of the servers (on
//     systems without Pdeathsig, all of them) and removes the directory.
//
// An ordinary [Group.Close] takes the guard's way too, so the way that matters
// after a crash is exercised by every test.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// KeepEnv names the environment variable that, when not empty, makes groups
// leave their directory (logs, keys, data) behind for a look at it.
const KeepEnv = "REMIT_E2E_KEEP"

// guardScript runs in the guard. Each line it reads is the complete list of
// servers alive; the last one before the end of the pipe counts. SIGQUIT comes
// first: a Go server ends on it at once, and PostgreSQL shuts down and frees
// its shared memory. Who has ended and is not reaped (in a container the first
// process may never do that) counts as ended.
const guardScript = `
trap '' HUP INT QUIT TERM
alive=
while read -r line; do alive=$line; done
for signal in QUIT KILL; do
	[ -z "$alive" ] && break
	kill -$signal $alive 2>/dev/null
	tries=0
	while [ $tries -lt 30 ]; do
		left=
		for pid in $alive; do
			kill -0 $pid 2>/dev/null || continue
			grep -qs '^State:.*Z' /proc/$pid/status && continue
			left="$left $pid"
		done
		alive=$left
		[ -z "$alive" ] && break
		sleep 0.1
		tries=$((tries + 1))
	done
done
if [ -n "$1" ]; then rm -rf -- "$1"; fi
`

// Group is a temporary directory and the servers that run in it.
type Group struct {
	dir   string
	guard *exec.Cmd
	pipe  io.WriteCloser

	mu     sync.Mutex
	alive  map[int]*Process
	all    []*Process
	closed bool
}

// NewGroup makes a temporary directory whose name begins with prefix, readable
// by its owner only, and starts its guard.
func NewGroup(prefix string) (*Group, error) {
	dir, err := os.MkdirTemp("", prefix+"-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the test servers: %w", err)
	}
	remove := dir
	if os.Getenv(KeepEnv) != "" {
		remove = ""
	}
	guard := exec.Command("sh", "-c", guardScript, "remit-e2e-guard", remove)
	guard.Dir = "/"
	guard.SysProcAttr = ownGroup()
	pipe, err := guard.StdinPipe()
	if err == nil {
		err = guard.Start()
	}
	if err != nil {
		return nil, errors.Join(
			fmt.Errorf("start the guard of %s (it needs a POSIX sh in PATH): %w", dir, err),
			os.RemoveAll(dir),
		)
	}
	return &Group{dir: dir, guard: guard, pipe: pipe, alive: map[int]*Process{}}, nil
}

// Dir is the group's directory.
func (g *Group) Dir() string { return g.dir }

// Path is the path of a file in the group's directory.
func (g *Group) Path(elem ...string) string {
	return filepath.Join(append([]string{g.dir}, elem...)...)
}

// Command says what to start.
type Command struct {
	// Name is what messages call the server; its log is Name.log in the
	// group's directory, appended to when a server of that name is started
	// again.
	Name string
	// Path is the binary, Args its arguments without the name of the program.
	Path string
	Args []string
	// Dir is the working directory; empty means the group's directory.
	Dir string
	// Env is the environment; nil means that of this process.
	Env []string
	// Credential makes the server run as another user, where this process may
	// do that.
	Credential *syscall.Credential
	// DeathSignal is what the kernel sends when this process dies (Linux only);
	// 0 means SIGKILL.
	DeathSignal syscall.Signal
}

// Process is a server that was started.
type Process struct {
	group *Group
	name  string
	log   string
	cmd   *exec.Cmd
	done  chan struct{}
	err   error // what Wait returned; read it only after done

	mu      sync.Mutex
	stopped bool // ended because this package was asked to
}

// Start starts a server. It does not wait for it to answer.
func (g *Group) Start(c Command) (*Process, error) {
	logPath := g.Path(c.Name + ".log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log of %s: %w", c.Name, err)
	}
	defer logFile.Close() // the server has its own copy

	cmd := exec.Command(c.Path, c.Args...)
	cmd.Dir = c.Dir
	if cmd.Dir == "" {
		cmd.Dir = g.dir
	}
	cmd.Env = c.Env
	cmd.Stdout, cmd.Stderr = logFile, logFile
	if c.DeathSignal == 0 {
		c.DeathSignal = syscall.SIGKILL
	}
	cmd.SysProcAttr = childAttr(c.Credential, c.DeathSignal)
	p := &Process{group: g, name: c.Name, log: logPath, cmd: cmd, done: make(chan struct{})}

	// The lock is held over the start, so that Close sees every server.
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, fmt.Errorf("start %s: its group is already closed", c.Name)
	}
	if err := startOnLastingThread(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	g.alive[cmd.Process.Pid] = p
	g.all = append(g.all, p)
	g.tellGuard()
	go func() {
		p.err = cmd.Wait()
		g.mu.Lock()
		delete(g.alive, cmd.Process.Pid)
		g.tellGuard()
		g.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// tellGuard sends the guard the servers that are alive. g.mu is held. Should
// the guard be gone, the servers still end with this process on Linux, and
// Close reports the guard's end.
func (g *Group) tellGuard() {
	if g.closed {
		return
	}
	var line bytes.Buffer
	for pid := range g.alive {
		fmt.Fprintf(&line, "%d ", pid)
	}
	line.WriteByte('\n')
	_, _ = g.pipe.Write(line.Bytes())
}

// Close kills the servers, lets the guard remove the directory, and returns
// when both are gone. Its error names servers that had ended by themselves
// before. Further calls do nothing.
func (g *Group) Close() error {
	errs := []error{g.Err()}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil
	}
	g.closed = true
	all := g.all
	g.mu.Unlock()
	for _, p := range all {
		p.Kill()
	}
	if err := g.pipe.Close(); err != nil {
		errs = append(errs, fmt.Errorf("close the guard's pipe: %w", err))
	}
	if err := g.guard.Wait(); err != nil {
		errs = append(errs, fmt.Errorf("the guard of %s could not remove it: %w", g.dir, err))
	}
	return errors.Join(errs...)
}

// Err names the servers of the group that ended by themselves; see
// [Process.Err].
func (g *Group) Err() error {
	g.mu.Lock()
	all := g.all
	g.mu.Unlock()
	var errs []error
	for _, p := range all {
		errs = append(errs, p.Err())
	}
	return errors.Join(errs...)
}

// Done is closed when the server has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Pid is the process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Log is the path of the server's log.
func (p *Process) Log() string { return p.log }

// Err says that, and how, a server ended by itself, with the end of its log;
// it is nil while the server runs and after Stop or Kill.
func (p *Process) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return nil
	}
	how := "without an error"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended (%s); %s", p.name, how, p.Tail(25))
}

// Succeeded says whether the process has ended with exit status 0.
func (p *Process) Succeeded() bool {
	select {
	case <-p.done:
		return p.err == nil
	default:
		return false
	}
}

// Kill ends the server with SIGKILL and waits for its end.
func (p *Process) Kill() { _ = p.Stop(syscall.SIGKILL, 0) }

// Stop sends the server a signal and waits for its end; after patience it is
// killed and an error says so. A patience of 0 waits without limit. From then
// on its end, even if it came before, is no error.
func (p *Process) Stop(signal syscall.Signal, patience time.Duration) error {
	p.mu.Lock()
	p.stopped = true
	p.mu.Unlock()
	select {
	case <-p.done:
		return nil
	default:
	}

	// An error means that the process has just ended: Wait tells.
	_ = p.cmd.Process.Signal(signal)
	if patience == 0 {
		<-p.done
		return nil
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %v of %v and was killed", p.name, patience, signal)
	}
}

// Tail is the end of the server's log, at most that many lines, introduced by
// the path of the log; it is made to be put into an error.
func (p *Process) Tail(lines int) string {
	text, err := tail(p.log, lines)
	if err != nil {
		return fmt.Sprintf("its log cannot be read: %v", err)
	}
	return fmt.Sprintf("the end of its log %s (set %s=1 to keep it):\n%s", p.log, KeepEnv, text)
}

// tail reads the last lines of a file, looking at its last 64 KiB only.
func tail(path string, lines int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const most = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	const longest = 500
	for i, line := range all {
		if len(line) > longest {
			all[i] = line[:longest] + "..."
		}
	}
	return strings.Join(all, "\n"), nil
}

// LogContains says whether the server wrote text to its log.
func (p *Process) LogContains(text string) bool {
	data, err := os.ReadFile(p.log)
	return err == nil && bytes.Contains(data, []byte(text))
}

// Wait calls ready again and again until it returns nil. It gives up when a
// server of the group has ended by itself (what this one waits for may be that
// one) or when the context ends, with the log and the last thing that ready had
// to say.
func (p *Process) Wait(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	// What answers at the server's port may be something else, which took the
	// port first and never answers this: then the server's end is the news.
	readyCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-readyCtx.Done():
		}
	}()
	for {
		last := ready(readyCtx)
		if last == nil {
			return nil
		}
		if err := p.group.Err(); err != nil {
			return err
		}
		select {
		case <-p.done:
			if err := p.group.Err(); err != nil {
				return err
			}
			return fmt.Errorf("%s was stopped before it was ready: %w", p.name, last)
		case <-ctx.Done():
			return fmt.Errorf("%s was not ready in time (%w): %w; %s", p.name, context.Cause(ctx), last, p.Tail(25))
		case <-tick.C:
		}
	}
}

// FreePort returns a TCP port of loopback that nobody uses now. Another process
// may take it before a server does: who starts a server should look for that
// and try another port.
func FreePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port on loopback: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("free the port again: %w", err)
	}
	return port, nil
}

// Alive says whether a process runs. One that has ended and that its parent has
// not yet asked about holds nothing any more, and counts as ended.
func Alive(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err != nil || !bytes.Contains(status, []byte("\nState:\tZ"))
}

// Pids are the servers of the group that run, and its guard.
func (g *Group) Pids() []int {
	g.mu.Lock()
	defer g.mu.Unlock()
	pids := []int{g.guard.Process.Pid}
	for pid := range g.alive {
		pids = append(pids, pid)
	}
	return pids
}
