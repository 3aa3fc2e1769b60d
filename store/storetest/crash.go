package storetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"remit"
)

// crashEnv holds, in the child of a crash test, the URL of the store.
const crashEnv = "REMIT_STORETEST_CRASH"

// Opener opens a store by its URL.
type Opener func(ctx context.Context, url string) (Store, error)

// Main is to be called by TestMain before the tests run: in the child process
// of [Crash] it writes to the store until it is killed, and elsewhere it
// returns at once.
func Main(open Opener) {
	url := os.Getenv(crashEnv)
	if url == "" {
		return
	}
	fmt.Fprintln(os.Stderr, writeForEver(open, url)) // it returns only when it fails
	os.Exit(1)
}

// The child changes page of crashPages at a time: record i of a page carries
// the number of the round that wrote it, and in odd rounds the second half of
// the page is deleted. It says what it is about to do and what was acknowledged.
const (
	crashPages = 4
	crashPage  = 300
)

func crashSystem() remit.System {
	return remit.System{ID: remit.SystemID("test", "crash"), Connector: "test", Name: "crash"}
}

func crashRecords(page, round int) (records remit.Records, deleted []remit.ID) {
	sys := crashSystem().ID
	for i := range crashPage {
		id := identity(sys, fmt.Sprint("page-", page), fmt.Sprintf("account-%d", i))
		cred := credential(sys, fmt.Sprint("page-", page), fmt.Sprintf("token-%d", i), id.ID)
		if round%2 == 1 && i >= crashPage/2 {
			deleted = append(deleted, id.ID, cred.ID)
			continue
		}
		id.Purpose, cred.Issuer = fmt.Sprint(round), fmt.Sprint(round)
		id.Type = []remit.IdentityType{remit.Human, remit.Agent, remit.Group}[round%3]
		records.Identities = append(records.Identities, id)
		records.Credentials = append(records.Credentials, cred)
	}
	return records, deleted
}

func writeForEver(open Opener, url string) error {
	ctx := context.Background()
	s, err := open(ctx, url)
	if err != nil {
		return err
	}
	run, err := s.StartRun(ctx, crashSystem().ID)
	if err != nil {
		return err
	}
	first := 0
	if _, err := fmt.Sscan(os.Getenv(crashEnv+"_ROUND"), &first); err != nil {
		return err
	}
	for round := first; ; round++ {
		for page := range crashPages {
			records, deleted := crashRecords(page, round)
			fmt.Printf("try %d %d\n", page, round)
			if _, err := run.Apply(ctx, "s", time.Now(), records, deleted); err != nil {
				return err
			}
			fmt.Printf("done %d %d\n", page, round)
		}
	}
}

// Crash kills a process with SIGKILL while it writes, again and again, and
// each time finds every acknowledged page whole, no page torn, and counters
// that equal a count. url is of a new store; the test's TestMain calls [Main].
func Crash(t *testing.T, open Opener, url string) {
	s, err := open(t.Context(), url)
	must(t, err)
	must(t, s.PutSystem(t.Context(), crashSystem()))
	must(t, s.Close())
	kills := 12
	if testing.Short() {
		kills = 4
	}
	var tried, done [crashPages]int // the last round of each page
	for i := range crashPages {
		tried[i], done[i] = -1, -1
	}
	round := 0
	for kill := range kills {
		// Some pages, on a slow machine too, and then anywhere in the next.
		pages, life := rand.IntN(3*crashPages), time.Duration(rand.IntN(100))*time.Millisecond
		writeUntilKilled(t, url, round, pages, life, func(what string, page, r int) {
			if what == "done" {
				done[page] = r
			} else {
				tried[page] = r
			}
			round = max(round, r+1)
		})
		s, err := open(t.Context(), url)
		if err != nil {
			t.Fatalf("after kill %d the store does not open: %v", kill, err)
		}
		checkCrashed(t, s, &tried, &done)
		must(t, s.Close())
	}
	if done[0] < 1 {
		t.Errorf("nothing was written between the kills: tried %v, done %v", tried, done)
	}
}

// writeUntilKilled runs the child until it has written a number of pages and
// then lived for a while longer, and tells of each line that it wrote.
func writeUntilKilled(t *testing.T, url string, round, pages int, life time.Duration, line func(what string, page, round int)) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^$")
	child.Env = append(os.Environ(), crashEnv+"="+url, fmt.Sprintf("%s_ROUND=%d", crashEnv, round))
	var stderr strings.Builder
	child.Stderr = &stderr
	out, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start())
	lines := bufio.NewScanner(out)
	killed, acknowledged := false, 0
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "done") {
			acknowledged++
		}
		if !killed && acknowledged >= pages {
			killed = true
			time.AfterFunc(life, func() { _ = child.Process.Kill() })
		}
		var what string
		var page, r int
		if _, err := fmt.Sscan(lines.Text(), &what, &page, &r); err != nil && err != io.ErrUnexpectedEOF {
			continue // the last line may be torn
		}
		line(what, page, r)
	}
	_ = child.Wait()
	if !killed {
		t.Fatalf("the child ended by itself: %s", stderr.String())
	}
}

// checkCrashed compares the store with what the child said: a page is as the
// last acknowledged round left it, or, where another was under way, as that one.
func checkCrashed(t *testing.T, s Store, tried, done *[crashPages]int) {
	t.Helper()
	types := make(map[string]int64)
	var total int64
	for page := range crashPages {
		f := remit.Filter{Namespaces: []string{fmt.Sprint("page-", page)}}
		got := all(t, s.Identities, f, remit.PageRequest{Limit: 1000})
		creds := all(t, s.Credentials, f, remit.PageRequest{Limit: 1000})
		round := -1
		if len(got) > 0 {
			if _, err := fmt.Sscan(got[0].Purpose, &round); err != nil {
				t.Fatal(err)
			}
		}
		if round != done[page] && round != tried[page] {
			t.Fatalf("page %d is of round %d; acknowledged was %d and under way %d", page, round, done[page], tried[page])
		}
		done[page], tried[page] = round, round
		want := 0
		if round >= 0 {
			records, _ := crashRecords(page, round)
			want = len(records.Identities)
		}
		if len(got) != want || len(creds) != want {
			t.Fatalf("page %d of round %d has %d identities and %d credentials, want %d", page, round, len(got), len(creds), want)
		}
		for i := range got {
			if got[i].Purpose != fmt.Sprint(round) || creds[i].Issuer != fmt.Sprint(round) {
				t.Fatalf("page %d is torn: %s and %s beside round %d", page, got[i].Purpose, creds[i].Issuer, round)
			}
			types[string(got[i].Type)]++
		}
		total += int64(want)
		for _, word := range []string{"account", "token"} {
			f.Search = word
			found := len(all(t, s.Identities, f, remit.PageRequest{Limit: 1000})) + len(all(t, s.Credentials, f, remit.PageRequest{Limit: 1000}))
			if found != want {
				t.Fatalf("page %d: the search for %s finds %d of %d", page, word, found, want)
			}
		}
	}
	counts, err := s.Counts(t.Context(), remit.KindIdentity, "")
	have := counted(t, counts, err)
	if have["="] != total {
		t.Fatalf("%d are counted and there are %d", have["="], total)
	}
	for typ, n := range types {
		if have["type="+typ] != n {
			t.Fatalf("%d of type %s are counted and there are %d", have["type="+typ], typ, n)
		}
	}
}
