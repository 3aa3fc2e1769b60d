//go:build unix

package process

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// serveLimit bounds a start, which takes a second or less on an idle machine.
const serveLimit = time.Minute

// Serve starts a server of one process, which ends with the test, on a free port of
// loopback, and on another one if some process takes that port first. It returns
// when the server answers. The name is for messages and for the log; command says
// what to start in the group so that it listens at an address (its own name is not
// looked at), and is asked again for each try.
func Serve(t testing.TB, name string, command func(g *Group, address string) Command, answers func(context.Context) error) {
	t.Helper()
	g, err := NewGroup("remit-" + name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("the server %s of this test: %v", name, err)
		}
	})
	ctx, cancel := context.WithTimeoutCause(t.Context(), serveLimit, fmt.Errorf("%s did not start within %v", name, serveLimit))
	defer cancel()
	for try := 1; ; try++ {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		c := command(g, "127.0.0.1:"+strconv.Itoa(port))
		c.Name = name + "-" + strconv.Itoa(try) // on its own log the next decision is made
		p, err := g.Start(c)
		if err == nil {
			err = p.Wait(ctx, answers)
		}
		if err == nil {
			return
		}
		if p == nil || try == 5 || !p.LogContains("address already in use") {
			t.Fatalf("start %s: %v", name, err)
		}
		p.Kill() // it has ended: that is no error any more
	}
}
