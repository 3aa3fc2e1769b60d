package queue_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"remit"
	"remit/activity/queue"
)

func open(t *testing.T, o queue.Options) *queue.Queue {
	t.Helper()
	q, err := queue.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.Close)
	return q
}

var errEnough = errors.New("enough")

// read returns the next n batches behind a sequence number.
func read(t *testing.T, q *queue.Queue, after int64, n int) (batches []queue.Batch, last int64) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	err := q.Read(ctx, after, 50*time.Millisecond, func(sequence int64, b queue.Batch) error {
		batches, last = append(batches, b), sequence
		if len(batches) == n {
			return errEnough
		}
		return nil
	}, func() error { return nil })
	if !errors.Is(err, errEnough) {
		t.Fatalf("after %d of %d batches: %v", len(batches), n, err)
	}
	return batches, last
}

// TestQueueKeepsOrderAndGoesOn reads what was put, in order, goes on after a
// restart from where the reader stood, and gives room back.
func TestQueueKeepsOrderAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	q := open(t, queue.Options{Dir: dir})
	learned := time.Date(2026, 11, 23, 14, 5, 6, 7000, time.UTC)
	for _, text := range []string{"a", "b", "c"} {
		if err := q.Put(t.Context(), queue.Batch{System: "sys_x", Source: "kubernetes", Learned: learned, Events: []byte(text)}); err != nil {
			t.Fatal(err)
		}
	}
	got, last := read(t, q, 0, 2)
	if string(got[0].Events) != "a" || string(got[1].Events) != "b" || got[0].System != "sys_x" || got[0].Source != "kubernetes" || !got[0].Learned.Equal(learned) {
		t.Fatalf("read %+v", got)
	}
	q.Close()

	q = open(t, queue.Options{Dir: dir})
	if got, last = read(t, q, last, 1); string(got[0].Events) != "c" {
		t.Fatalf("after a restart: %+v", got)
	}
	if err := q.Discard(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if batches, _, err := q.Waiting(t.Context()); err != nil || batches != 0 {
		t.Fatalf("%d wait, %v", batches, err)
	}
	if err := q.Put(t.Context(), queue.Batch{Events: []byte("d")}); err != nil {
		t.Fatal(err)
	}
	if got, _ = read(t, q, last, 1); string(got[0].Events) != "d" {
		t.Fatalf("after a discard: %+v", got)
	}
}

// TestKilled kills a process that puts batches and discards all that it has put.
// Numbers must go on above the ones that were acknowledged: once they began again
// below, and the reader, who stood behind the former ones, never saw the new.
// REMIT_KILLS sets how often.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("REMIT_QUEUE_KILLED"); dir != "" {
		putUntilKilled(dir)
		return
	}
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("REMIT_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	var last int64
	for range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "REMIT_QUEUE_KILLED="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(rand.IntN(1000))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			sequence, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				t.Fatalf("the process said %q", lines.Text())
			}
			if sequence <= last {
				t.Fatalf("number %d is given out again, after %d", sequence, last)
			}
			last = sequence
		}
		_ = cmd.Wait()
	}
	t.Logf("%d batches", last)
}

// putUntilKilled puts a batch, reads it and discards it, again and again, and says
// the number of each.
func putUntilKilled(dir string) {
	ctx := context.Background()
	q, err := queue.Open(ctx, queue.Options{Dir: dir})
	after := int64(0)
	for n := 0; err == nil; n++ {
		mine := fmt.Sprint(os.Getpid(), n)
		if err = q.Put(ctx, queue.Batch{Events: []byte(mine)}); err != nil {
			break
		}
		err = q.Read(ctx, after, time.Second, func(sequence int64, b queue.Batch) error {
			if after = sequence; string(b.Events) == mine {
				return errEnough
			}
			return nil // the former process's
		}, func() error { return nil })
		if errors.Is(err, errEnough) {
			fmt.Println(after)
			err = q.Discard(ctx, after)
		}
	}
	fmt.Println(err)
}

// TestFullQueueRefuses tells the sender that nothing more fits, and takes the
// batch when there is room again.
func TestFullQueueRefuses(t *testing.T) {
	q := open(t, queue.Options{Dir: t.TempDir(), MaxBytes: 1 << 20})
	batch := queue.Batch{Events: []byte(strings.Repeat("x", 300<<10))}
	var err error
	n := 0
	for ; n < 10 && err == nil; n++ {
		err = q.Put(t.Context(), batch)
	}
	if remit.KindOf(err) != remit.Unavailable || !strings.Contains(err.Error(), "full") {
		t.Fatalf("after %d batches of 300 KiB in 1 MiB: %v", n, err)
	}
	if err := q.Discard(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := q.Put(t.Context(), batch); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if err := q.Put(t.Context(), queue.Batch{Events: make([]byte, queue.MaxBatch+1)}); remit.KindOf(err) != remit.Invalid {
		t.Fatalf("a batch above the limit: %v", err)
	}
}
