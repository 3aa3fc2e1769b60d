package connectortest

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"remit/connector"
)

// changes is how many random changes a watch has to follow.
const changes = 150

// watch makes random changes and expects the watch to arrive where a fresh
// inventory does.
func (s Setup) watch(t *testing.T) { s.watchThrough(t, "", nil) }

// watchBadNetwork does the same while the watches' connections are cut and
// requests fail.
func (s Setup) watchBadNetwork(t *testing.T) {
	p := newProxy(t, s.Server, s.Transport)
	s.watchThrough(t, p.address(), func(i int) {
		switch i % 40 {
		case 10:
			p.cutStreams()
		case 20:
			p.set(&fault{reset: true, every: 2, watches: true})
			p.cutStreams()
		case 30:
			// The version that a watch goes on from is too old: list anew.
			p.set(&fault{status: 410, every: 2, watches: true, body: `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old resource version"}`})
			p.cutStreams()
		case 39:
			p.set(nil)
		}
	})
}

func (s Setup) watchThrough(t *testing.T, address string, disturb func(i int)) {
	c := s.Open(t, address)
	w, ok := c.(connector.Watcher)
	if !ok {
		t.Fatal("the connector cannot watch, though Setup.Change is given")
	}
	seed := s.Seed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))

	sh := newShelf(t, c, s.Volatile)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Watch(ctx, sh.take) }()
	defer func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch goes on though it was cancelled")
		}
	}()

	for i := range changes {
		if disturb != nil {
			disturb(i)
		}
		if err := s.Change(ctx, random); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if i%10 == 0 {
			time.Sleep(20 * time.Millisecond) // so that some pages hold few changes and some many
		}
	}
	if disturb != nil {
		disturb(39)
	}

	// The system may still be settling, and the watch may be waiting for a
	// server that it has been refused by.
	deadline := time.Now().Add(patient)
	for {
		fresh := s.read(t, s.Open(t, ""))
		differences := sh.differences(fresh, "the watch", "a fresh inventory")
		if len(differences) == 0 && len(sh.openGaps()) == 0 {
			t.Logf("%d records, %d pages", len(fresh.records), sh.pages)
			return
		}
		if time.Now().After(deadline) {
			for i, d := range differences {
				if i < 10 {
					t.Error(d)
				}
			}
			for _, gap := range sh.openGaps() {
				t.Errorf("the gap was not closed: %+v", gap)
			}
			t.Fatalf("the watch did not arrive where a fresh inventory does: %d differences", len(differences))
		}
		select {
		case err := <-ended:
			t.Fatalf("Watch ended: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
	}
}
