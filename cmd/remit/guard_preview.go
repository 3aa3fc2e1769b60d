package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/connector/kubernetes"
	"remit/report"
)

func newGuardPreviewCommand(global *globalFlags) *cobra.Command {
	var system, format string
	since := span(30 * 24 * time.Hour)
	cmd := &cobra.Command{
		Use:   "preview",
		Short: "Show what the guard would have refused, or its policies, and change nothing",
		Long: `Preview tries the rules of the configuration that are on: on what the inventory
holds, as if somebody who is not exempt made it anew, and on what the audit log
shows to have been made. They are evaluated as the API server evaluates them. Of a
log at level Metadata bodies are missing: how much could not be judged is told.

With --format yaml it prints the policies themselves.`,
		Example: `  remit guard preview --system prod
  remit guard preview --system prod --format yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"text", "json", "yaml"}, format) {
				return remit.Errorf(remit.Invalid, "", "no format %q: use text, json or yaml", format)
			}
			ctx := cmd.Context()
			c, err := readConfig(global)
			if err != nil {
				return err
			}
			data, err := openDataDir(ctx, global, false)
			if err != nil {
				return err
			}
			defer data.Close()
			known, configured, err := guardedSystem(ctx, data, c, system)
			if err != nil {
				return err
			}
			if !configured.guard.On() {
				return remit.Errorf(remit.NotFound, "", "no rule of the guard of %s is on: set guard: in remit.yaml, as docs/how-to/guard.md shows", known.Name)
			}
			if format == "yaml" {
				return configured.guard.WriteYAML(cmd.OutOrStdout(), "")
			}
			p, err := previewGuard(ctx, data, known, configured.guard, time.Now().Add(-time.Duration(since)))
			if err != nil {
				return err
			}
			if format == "json" {
				document := json.NewEncoder(cmd.OutOrStdout())
				document.SetIndent("", "  ")
				return document.Encode(p)
			}
			return p.write(cmd.OutOrStdout(), configured.guard)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&system, "system", "", "the cluster of this `name`; it need not be said where only one is configured")
	flags.Var(&since, "since", "how far back the audit log is tried")
	flags.StringVarP(&format, "format", "f", "text", "output format: `text|json|yaml`")
	return cmd
}

// guardPreview is what a guard would have refused.
type guardPreview struct {
	System    string                  `json:"system"`
	Read      time.Time               `json:"read"` // when the inventory was
	Inventory []kubernetes.GuardMatch `json:"inventory"`

	Since    time.Time      `json:"since"`
	Log      bool           `json:"log"`    // whether there is an archive
	Judged   int            `json:"judged"` // events that made something
	Events   []guardEvents  `json:"events"`
	Unjudged map[string]int `json:"unjudged"` // by rule: the log holds no body
}

// guardEvents are events that one rule is against, of one asker and kind.
type guardEvents struct {
	Rule      kubernetes.GuardRule `json:"rule"`
	By        string               `json:"by"`
	Kind      string               `json:"kind"`
	Namespace string               `json:"namespace,omitempty"`
	Message   string               `json:"message"`
	Refused   bool                 `json:"refused"` // and not let through, or not yet in force
	Count     int                  `json:"count"`
	Last      time.Time            `json:"last"`
	Example   string               `json:"example,omitempty"` // the name in the last of them
}

// guardTally counts events.
type guardTally map[guardEvents]*guardEvents

func (t guardTally) add(e guardEvents, a *remit.Activity) {
	e.By, e.Namespace, e.Kind = a.Principal, a.Resource.Namespace, a.Resource.Kind
	sum := t[e]
	if sum == nil {
		one := e
		sum = &one
		t[e] = sum
	}
	sum.Count++
	if !a.Time.Before(sum.Last) {
		sum.Last, sum.Example = a.Time, a.Resource.Name
	}
}

func (t guardTally) sorted() []guardEvents {
	all := make([]guardEvents, 0, len(t))
	for _, e := range t {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b guardEvents) int {
		return cmp.Or(slices.Index(kubernetes.GuardRules, a.Rule)-slices.Index(kubernetes.GuardRules, b.Rule), cmp.Compare(b.Count, a.Count),
			cmp.Compare(a.By, b.By), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Message, b.Message))
	})
	return all
}

func previewGuard(ctx context.Context, data *dataDir, system remit.System, guard kubernetes.Guard, since time.Time) (*guardPreview, error) {
	judge, err := kubernetes.NewGuardJudge(guard)
	if err != nil {
		return nil, err
	}
	p := &guardPreview{System: system.Name, Read: system.Observed, Since: since, Unjudged: map[string]int{}, Inventory: []kubernetes.GuardMatch{}}
	err = judge.Inventory(ctx, data.Store, system.ID, func(m kubernetes.GuardMatch) { p.Inventory = append(p.Inventory, m) })
	if err != nil {
		return nil, err
	}
	slices.SortFunc(p.Inventory, func(a, b kubernetes.GuardMatch) int {
		return cmp.Or(slices.Index(kubernetes.GuardRules, a.Rule)-slices.Index(kubernetes.GuardRules, b.Rule), cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Message, b.Message))
	})
	p.Inventory = slices.Compact(p.Inventory) // a binding has several subjects
	homes, err := kubernetes.GuardHomes(ctx, data.Store, system.ID)
	if err != nil {
		return nil, err
	}
	tally := guardTally{}
	p.Log, err = eachEvent(ctx, data, archive.Query{System: system.ID, Action: "create", Outcome: remit.Allowed, From: since, Raw: true}, func(a *remit.Activity, raw []byte) error {
		matches, err := judge.Event(a, raw, homes)
		if err != nil {
			return remit.Errorf(remit.KindOf(err), "preview guard", "event %s: %w", a.ID, err)
		}
		p.Judged++
		for _, m := range matches {
			if m.Message == "" {
				p.Unjudged[string(m.Rule)]++
				continue
			}
			tally.add(guardEvents{Rule: m.Rule, Message: m.Message}, a)
		}
		return nil
	})
	p.Events = tally.sorted()
	return p, err
}

// eachEvent reads events of the archive; false when there is none.
func eachEvent(ctx context.Context, data *dataDir, q archive.Query, each archive.Each) (bool, error) {
	path := filepath.Join(data.path, "archive")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	a, err := archive.Open(path, archive.Options{})
	if err != nil {
		return false, err
	}
	defer a.Close()
	files, err := activity.Manifest(ctx, data.Store, q.System, q.From, q.To)
	if err != nil {
		return false, err
	}
	return true, a.Query(ctx, files, q, each)
}

// shownMatches is how many objects of a rule a text names.
const shownMatches = 20

func (p *guardPreview) write(w io.Writer, guard kubernetes.Guard) error {
	out := &lineWriter{w: w}
	out.line("GUARD of %s", report.Visible(p.System))
	for _, r := range kubernetes.GuardRules {
		out.line("  %-14s %-8s %s", r, guard.State(r), r.Title())
	}
	out.line("\nOF WHAT THERE IS, as read at %s UTC, it would refuse if it were made anew", p.Read.UTC().Format("2006-01-02 15:04"))
	for _, r := range kubernetes.GuardRules {
		n := 0
		for _, m := range p.Inventory {
			if m.Rule != r {
				continue
			}
			if n++; n <= shownMatches {
				out.line("  %-14s %s", r, report.Visible(m.Object.String()))
			}
		}
		if n > shownMatches {
			out.line("  %-14s and %d more", r, n-shownMatches)
		}
	}
	if len(p.Inventory) == 0 {
		out.line("  nothing")
	}
	if !p.Log {
		out.line("\nThere is no archive of events: what was made lately cannot be tried (remit serve, or remit import activity).")
		return out.err
	}
	out.line("\nOF THE %d EVENTS since %s UTC that made something, it would have refused", p.Judged, p.Since.UTC().Format("2006-01-02 15:04"))
	writeGuardEvents(out, p.Events)
	for _, r := range kubernetes.GuardRules {
		if n := p.Unjudged[string(r)]; n > 0 {
			out.line("  %-14s %6d × not judged: the log holds no body of the request (level Metadata, or the raw form is not kept)", r, n)
		}
	}
	out.line("\nNothing was changed. With audit in the configuration: remit guard apply, and after some days remit guard report.")
	return out.err
}

func writeGuardEvents(out *lineWriter, events []guardEvents) {
	if len(events) == 0 {
		out.line("  nothing")
	}
	for _, e := range events {
		where := e.Kind
		if e.Namespace != "" {
			where += " in " + e.Namespace
		}
		if e.Example != "" {
			where += ", as " + e.Example
		}
		out.line("  %-14s %6d × %s, by %s, last %s UTC", e.Rule, e.Count, report.Visible(where), report.Visible(e.By), e.Last.UTC().Format("2006-01-02 15:04"))
		out.line("  %-14s          %s", "", report.Visible(e.Message))
	}
}

// lineWriter writes lines, and keeps the first error.
type lineWriter struct {
	w   io.Writer
	err error
}

func (l *lineWriter) line(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintf(l.w, format+"\n", args...)
	}
}
