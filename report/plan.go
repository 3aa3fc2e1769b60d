package report

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"strings"

	"remit"
)

// WritePlan writes a response for people: what it changes, what that breaks, how
// it is undone, and what became of it.
func WritePlan(w io.Writer, r remit.Response) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s %s · %s\n", strings.ToUpper(string(r.Action)), Visible(r.Subject.String()), r.State)
	fmt.Fprintf(out, "plan %s, asked by %s", r.ID, Visible(r.AskedBy))
	if len(r.ApprovedBy) > 0 {
		fmt.Fprintf(out, ", approved by %s", Visible(strings.Join(r.ApprovedBy, " and ")))
	}
	if r.Cause != "" {
		fmt.Fprintf(out, ", because of %s", Visible(r.Cause))
	}
	fmt.Fprintln(out)
	if len(r.Why) > 0 {
		fmt.Fprintln(out, "\nWHY")
		for _, why := range r.Why {
			fmt.Fprintf(out, "  %s\n", Visible(why))
		}
	}
	for i, s := range r.Steps {
		fmt.Fprintf(out, "\nSTEP %d · %s · %s\n", i+1, cmp.Or(string(s.Grade), strings.TrimPrefix(string(s.Phase)+" · "+Visible(s.Object.String()), " · ")), s.State)
		fmt.Fprintf(out, "  does    %s\n", Visible(s.Does))
		fmt.Fprintf(out, "  breaks  %s\n", cmp.Or(Visible(s.Breaks), "nobody who should have it will notice"))
		fmt.Fprintf(out, "  undo    %s\n", cmp.Or(Visible(s.Undo), "it cannot be undone"))
		for line := range strings.Lines(s.Diff) {
			fmt.Fprintf(out, "    %s\n", Visible(strings.TrimSuffix(line, "\n")))
		}
		if s.Failure != "" {
			fmt.Fprintf(out, "  failed  %s\n", Visible(s.Failure))
		}
	}
	if len(r.Used) > 0 {
		fmt.Fprintln(out, "\nUSED IN THE LAST 30 DAYS")
		for _, u := range r.Used {
			fmt.Fprintf(out, "  %6d  %s %s, %s, last %s UTC\n", u.Count, Visible(u.Action), Visible(u.Resource.String()), u.Outcome, u.Last.Format("2006-01-02 15:04"))
		}
	}
	if len(r.History) > 0 {
		fmt.Fprintln(out, "\nHISTORY")
		for _, e := range r.History {
			fmt.Fprintf(out, "  %s UTC  %s  by %s", e.Time.Format("2006-01-02 15:04:05.000"), e.State, Visible(e.Actor))
			if e.Note != "" {
				fmt.Fprintf(out, ": %s", Visible(e.Note))
			}
			fmt.Fprintln(out)
		}
	}
	return out.Flush()
}
