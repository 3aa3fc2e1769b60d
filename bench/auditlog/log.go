package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/valyala/fastjson"
)

// follow counts the events of a log until there are enough of them or the time is
// up.
func follow(ctx context.Context, path string, enough int) (events int) {
	f, err := os.Open(path)
	if err != nil {
		log.Print(err)
		return 0
	}
	defer f.Close()
	buffer := make([]byte, 1<<20)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for told := time.Now(); ; {
		n, err := f.Read(buffer)
		events += bytes.Count(buffer[:n], []byte("\n"))
		if events >= enough {
			return events
		}
		if time.Since(told) > 20*time.Second {
			told = time.Now()
			log.Printf("%d events", events)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			log.Print(err)
		}
		select {
		case <-ctx.Done():
			return events
		case <-tick.C:
		}
	}
}

// sums say how much a log repeats itself, on which the cost of reading it depends.
type sums struct {
	events, bytes                 int64
	different, noQuery            int
	users, credentials, addresses int
	byVerb                        map[string]int
}

type verbCount struct {
	verb  string
	count int
}

func (s *sums) verbs() (all []verbCount) {
	for verb, n := range s.byVerb {
		all = append(all, verbCount{verb, n})
	}
	slices.SortFunc(all, func(a, b verbCount) int {
		return cmp.Or(b.count-a.count, strings.Compare(a.verb, b.verb))
	})
	return all
}

// copyLog copies the whole lines of a log and counts them.
func copyLog(from string, to io.Writer) (s sums, err error) {
	in, err := os.Open(from)
	if err != nil {
		return s, err
	}
	defer in.Close()
	w := bufio.NewWriterSize(to, 1<<20)
	r := bufio.NewReaderSize(in, 1<<20)
	s.byVerb = map[string]int{}
	seed := maphash.MakeSeed()
	different, noQuery := map[uint64]bool{}, map[uint64]bool{}
	users, credentials, addresses := map[string]bool{}, map[string]bool{}, map[string]bool{}
	var parser fastjson.Parser
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break // what comes after the last line is half an event
		}
		if err != nil {
			return s, err
		}
		event, err := parser.ParseBytes(line)
		if err != nil {
			return s, fmt.Errorf("read event %d of %s: %w", s.events+1, from, err)
		}
		text := func(path ...string) string { return string(event.GetStringBytes(path...)) }
		user, verb, uri, agent := text("user", "username"), text("verb"), text("requestURI"), text("userAgent")
		address, credential := text("sourceIPs", "0"), text("user", "extra", "authentication.kubernetes.io/credential-id", "0")
		short, _, _ := strings.Cut(uri, "?")
		for _, one := range []struct {
			uri string
			all map[uint64]bool
		}{{uri, different}, {short, noQuery}} {
			one.all[maphash.String(seed, strings.Join([]string{user, verb, one.uri, agent, address, credential}, "\x00"))] = true
		}
		users[user], credentials[credential], addresses[address] = true, true, true
		s.byVerb[verb]++
		s.events++
		s.bytes += int64(len(line))
		if _, err := w.Write(line); err != nil {
			return s, err
		}
	}
	s.different, s.noQuery = len(different), len(noQuery)
	delete(credentials, "") // whoever has none
	s.users, s.credentials, s.addresses = len(users), len(credentials), len(addresses)
	return s, w.Flush()
}
