package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// goOn writes a log of rounds rounds of another: in each, every event has an ID
// of its own and times that follow those of the round before, and is otherwise
// as it was. It stands for the same cluster going on with the same work: what a
// log of a few minutes costs once (identities, credentials and names seen for
// the first time) and what a long one costs for ever are two figures.
func goOn(from, to string, rounds int) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	span, err := logSpan(in)
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() {
		if e := out.Close(); err == nil {
			err = e
		}
	}()
	w := bufio.NewWriterSize(out, 1<<20)
	r := rand.New(rand.NewPCG(11, 13))
	for round := range rounds {
		if _, err := in.Seek(0, io.SeekStart); err != nil {
			return err
		}
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 1<<20), 64<<20)
		for lines.Scan() {
			line := lines.Bytes()
			if round > 0 {
				shift(line, time.Duration(round)*span, r)
			}
			if _, err := w.Write(append(line, '\n')); err != nil {
				return err
			}
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	return w.Flush()
}

var (
	auditID  = []byte(`"auditID":"`)
	received = []byte(`"requestReceivedTimestamp":"`)
	staged   = []byte(`"stageTimestamp":"`)
)

// microseconds is how an API server writes a time, in a fixed width.
const microseconds = "2006-01-02T15:04:05.000000"

// shift changes an event in place.
func shift(line []byte, by time.Duration, r *rand.Rand) {
	if at := bytes.Index(line, auditID); at >= 0 && len(line) > at+len(auditID)+36 {
		id := line[at+len(auditID):][:36]
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:8], r.Uint64())
		binary.LittleEndian.PutUint64(b[8:], r.Uint64())
		copy(id, fmt.Appendf(nil, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
	}
	for _, mark := range [][]byte{received, staged} {
		if t, text := timeOf(line, mark); text != nil {
			copy(text, t.Add(by).Format(microseconds)) // AppendFormat writes further than it says
		}
	}
}

func timeOf(line, mark []byte) (time.Time, []byte) {
	at := bytes.Index(line, mark)
	if at < 0 || len(line) < at+len(mark)+len(microseconds)+1 || line[at+len(mark)+len(microseconds)] != 'Z' {
		return time.Time{}, nil
	}
	text := line[at+len(mark):][:len(microseconds)]
	t, err := time.Parse(microseconds, string(text))
	if err != nil {
		return time.Time{}, nil
	}
	return t, text
}

// logSpan is the time that a log covers.
func logSpan(in io.Reader) (time.Duration, error) {
	var first, last time.Time
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	for lines.Scan() {
		t, text := timeOf(lines.Bytes(), received)
		if text == nil {
			continue
		}
		if first.IsZero() || t.Before(first) {
			first = t
		}
		if t.After(last) {
			last = t
		}
	}
	if err := lines.Err(); err != nil {
		return 0, err
	}
	return last.Sub(first) + time.Second, nil
}
