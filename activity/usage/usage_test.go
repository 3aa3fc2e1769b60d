package usage_test

import (
	"fmt"
	"testing"
	"time"

	"remit"
	"remit/activity/usage"
)

// TestNamesAreBounded counts every use exactly, and by name only for the first
// resources, also after a restart.
func TestNamesAreBounded(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	observe := func(table *usage.Table, from, to int) {
		for i := from; i < to; i++ {
			table.Observe(&remit.Activity{Time: at.Add(time.Duration(i) * time.Second), Action: "get", Resource: remit.Ref{Kind: "pods", Name: fmt.Sprint(i)}, Outcome: remit.Allowed, Root: "r"}, "idn")
		}
	}
	table := usage.New("sys")
	observe(table, 0, 20)
	var c remit.Checkpoint
	table.Changed(&c)
	if len(c.Usage) != 20 || table.Len() != 0 {
		t.Fatalf("%d rows, %d left", len(c.Usage), table.Len())
	}
	again := usage.New("sys")
	again.Load(c.Usage)
	observe(again, 0, 1000)
	c = remit.Checkpoint{}
	again.Changed(&c)
	var sum, rest int64
	for _, u := range c.Usage {
		sum += u.Count
		if u.Resource.Name == usage.Rest {
			rest = u.Count
		}
	}
	if sum != 1000 || rest != 1000-usage.MaxNames || len(c.Usage) != usage.MaxNames+1 {
		t.Errorf("%d in %d rows, %d under %q", sum, len(c.Usage), rest, usage.Rest)
	}
}
