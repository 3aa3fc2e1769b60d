package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"remit/inventory"
	"remit/report"
)

// progress shows on a terminal's standard error how far a reading is; in a pipe
// it is silent.
type progress struct {
	mu    sync.Mutex
	on    bool
	shown time.Time
}

func newProgress(quiet bool) *progress {
	return &progress{on: !quiet && term.IsTerminal(int(os.Stderr.Fd()))}
}

// Show tells of a reading, at most ten times a second.
func (p *progress) Show(now inventory.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(os.Stderr, "\r\x1b[Kreading %s: %d records", report.Visible(now.Section), now.Records)
}

// Say shows one line in place of the last.
func (p *progress) Say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.on {
		fmt.Fprintf(os.Stderr, "\r\x1b[K%s", report.Visible(line))
	}
}

// Done clears the line.
func (p *progress) Done() { p.Say("") }
