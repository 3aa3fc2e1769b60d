package ingest_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"remit"
	"remit/connector"
	"remit/connector/kubernetes"
	"remit/server/ingest"
)

// kept are positions in memory.
type kept struct {
	mu  sync.Mutex
	all map[string]remit.Position
}

func (k *kept) Positions(context.Context) (all []remit.Position, _ error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.all {
		all = append(all, p)
	}
	return all, nil
}

func (k *kept) Checkpoint(_ context.Context, c remit.Checkpoint) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.all == nil {
		k.all = map[string]remit.Position{}
	}
	for _, p := range c.Positions {
		k.all[p.Source] = p
	}
	return nil
}

// follower follows a file whose writer is the test.
type follower struct {
	t         *testing.T
	path      string
	queue     *shelf
	grave     *grave
	positions *kept
	stop      func()
	written   int
}

func newFollower(t *testing.T) *follower {
	f := &follower{t: t, path: filepath.Join(t.TempDir(), "audit.log"), queue: new(shelf), grave: new(grave), positions: new(kept)}
	f.start()
	t.Cleanup(func() { f.stop() })
	return f
}

func (f *follower) start() {
	ctx, cancel := context.WithCancel(context.Background())
	tail := ingest.Tail{
		Path: f.path, From: ingest.Origin{Name: "file"}, Positions: f.positions, Every: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Intake: &ingest.Intake{Queue: f.queue, Decoders: []connector.Decoder{kubernetes.Audit}, DeadLetter: f.grave.put},
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := tail.Run(ctx); err != nil && ctx.Err() == nil {
			f.t.Errorf("follow: %v", err)
		}
	}()
	f.stop = func() { cancel(); <-done }
}

func (f *follower) append(text string) {
	f.t.Helper()
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		f.t.Fatal(err)
	}
}

// write appends n events.
func (f *follower) write(n int) {
	f.t.Helper()
	var b strings.Builder
	for range n {
		fmt.Fprintln(&b, event(fmt.Sprint(f.written)))
		f.written++
	}
	f.append(b.String())
}

func (f *follower) rename(to string) {
	f.t.Helper()
	if err := os.Rename(f.path, filepath.Join(filepath.Dir(f.path), to)); err != nil {
		f.t.Fatal(err)
	}
}

// settle waits until every event was queued, each at least once.
func (f *follower) settle() {
	f.t.Helper()
	var missing []int
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		seen := map[string]bool{}
		for _, id := range f.queue.ids(f.t) {
			seen[id] = true
		}
		missing = missing[:0]
		for n := range f.written {
			if !seen[fmt.Sprint(n)] {
				missing = append(missing, n)
			}
		}
		if len(missing) == 0 {
			return
		}
	}
	f.t.Fatalf("%d events were not queued, the first of them %d", len(missing), missing[0])
}

// once holds that no event was queued twice while nothing failed.
func (f *follower) once() {
	f.t.Helper()
	if n := len(f.queue.ids(f.t)); n != f.written {
		f.t.Errorf("%d events queued, of %d", n, f.written)
	}
}

func TestTailGrowing(t *testing.T) {
	f := newFollower(t) // the file comes later
	for range 20 {
		f.write(7)
		time.Sleep(time.Millisecond)
	}
	f.append(event("0")[:30]) // half a line is none
	time.Sleep(20 * time.Millisecond)
	f.append(event("0")[30:] + "\n")
	f.write(1)
	f.settle()
	if n := len(f.queue.ids(t)); n != f.written+1 || len(f.grave.lines) > 0 {
		t.Errorf("%d queued of %d; dead: %s", n, f.written+1, f.grave.text())
	}
}

func TestTailRotated(t *testing.T) {
	f := newFollower(t)
	f.write(1)
	f.settle() // following has begun; from here on nothing may be missed
	for n := range 10 {
		f.write(50)
		f.rename(fmt.Sprintf("audit-2026-11-25T10-00-%02d.000.log", n))
	}
	f.write(3)
	f.settle()
	f.once()
}

// TestTailRotatedInAnInstant: a clock that stood still between rotations once had
// files read again that were read before.
func TestTailRotatedInAnInstant(t *testing.T) {
	f := newFollower(t)
	for n := range 5 {
		f.write(5)
		f.settle()
		instant := time.Unix(1_795_000_000, 0)
		if err := os.Chtimes(f.path, instant, instant); err != nil {
			t.Fatal(err)
		}
		f.rename(fmt.Sprintf("audit-2026-11-25T10-00-%02d.000.log", n))
	}
	f.write(3)
	f.settle()
	f.once()
}

// TestTailRotatedInHalfALine: a file that holds nothing but how every event begins
// must not be taken for those that come after it.
func TestTailRotatedInHalfALine(t *testing.T) {
	f := newFollower(t)
	f.write(2)
	f.settle()
	f.stop()
	instant := time.Unix(1_795_000_000, 0)
	for n, content := range []func(){func() {}, func() { f.append(event("0")[:20]) }, func() { f.write(3) }, func() { f.write(3) }} {
		content()
		if err := os.Chtimes(f.path, instant, instant.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
		f.rename(fmt.Sprintf("audit-2026-11-25T10-00-%02d.000.log", n))
	}
	f.write(1)
	f.start()
	f.settle()
	f.once()
}

// TestTailLastLineWithoutEnd: what a writer left of a line when it rotated the
// file is told, and is no obstacle.
func TestTailLastLineWithoutEnd(t *testing.T) {
	f := newFollower(t)
	f.write(2)
	f.append(`{"kind":"Event","auditID":"to`)
	f.settle()
	f.rename("audit.log.1")
	f.write(2)
	f.settle()
	f.once()
	if len(f.grave.lines) != 1 {
		t.Errorf("dead: %s", f.grave.text())
	}
}

func TestTailTruncated(t *testing.T) {
	f := newFollower(t)
	f.write(100)
	f.settle()
	if err := os.Truncate(f.path, 0); err != nil {
		t.Fatal(err)
	}
	f.write(5)
	f.settle()
	f.once()
}

// TestTailResumed: what was written while nobody followed is read, wherever it is
// by then.
func TestTailResumed(t *testing.T) {
	gzipped := func(t *testing.T, path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".gz", []byte(packed(t, "gzip", string(text))), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, meanwhile := range map[string]func(f *follower){
		"nothing happened": func(*follower) {},
		"appended":         func(f *follower) { f.write(10) },
		"rotated":          func(f *follower) { f.write(10); f.rename("audit-1.log"); f.write(5) },
		"rotated twice": func(f *follower) {
			f.write(10)
			f.rename("audit-1.log")
			time.Sleep(10 * time.Millisecond)
			f.write(5)
			f.rename("audit-2.log")
			f.write(5)
		},
		"rotated and compressed": func(f *follower) {
			f.write(10)
			f.rename("audit.log.1")
			gzipped(f.t, f.path+".1")
			f.write(5)
		},
		"rotated away, nothing new yet": func(f *follower) { f.write(10); f.rename("audit-1.log"); f.append("") },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFollower(t)
			f.write(100)
			f.settle()
			time.Sleep(20 * time.Millisecond) // the position is kept
			f.stop()
			meanwhile(f)
			f.start()
			f.settle()
			f.once()
		})
	}
}

// TestTailWaits: while the queue is full nothing is lost.
func TestTailWaits(t *testing.T) {
	f := newFollower(t)
	f.write(10)
	f.settle()
	f.queue.fail(remit.Errorf(remit.Unavailable, "queue events", "full"))
	f.write(10)
	f.rename("audit-1.log")
	f.write(10)
	time.Sleep(50 * time.Millisecond)
	f.queue.fail(nil)
	f.settle()
	f.once()
}
