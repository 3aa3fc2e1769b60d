package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/activity"
	"remit/activity/archive"
	"remit/activity/lineage"
	"remit/report"
)

// activityListFlags choose what `remit activity` shows.
type activityListFlags struct {
	system, credential, address, action, outcome string
	from, to                                     string
	limit                                        int
	events                                       bool
	format                                       string
}

func newActivityCommand(global *globalFlags) *cobra.Command {
	var f activityListFlags
	cmd := &cobra.Command{
		Use:   "activity [IDENTITY]",
		Short: "Who did what: identities, the credentials of one and which minted which, events",
		Long: `Activity lists the identities that audit logs have shown. For one identity, named
as the log names it or by its ID, it draws the tree of its credentials, which
minted which, and lists what it used of its rights.

With --events, or with a filter on events, it searches the archive and prints
what was done, as JSON lines, CSV or OCSF.`,
		Example: `  remit activity --data-dir ~/.remit
  remit activity --data-dir ~/.remit system:serviceaccount:payments:api
  remit activity --data-dir ~/.remit --credential JTI=4c5… --from 2026-11-23 --format csv`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			subject := ""
			if len(args) > 0 {
				subject = args[0]
			}
			// Who asks for a format or a number of events wants events.
			f.events = f.events || cmd.Flags().Changed("format") || cmd.Flags().Changed("limit")
			return f.run(cmd, global, subject)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.system, "system", "", "only in the system of this `name`")
	flags.BoolVar(&f.events, "events", false, "the events themselves, from the archive")
	flags.StringVar(&f.credential, "credential", "", "events of this `credential`, as the log writes it, and the one that minted it")
	flags.StringVar(&f.address, "address", "", "events from this `address`")
	flags.StringVar(&f.action, "action", "", "events of this `action`")
	flags.StringVar(&f.outcome, "outcome", "", "events that ended so: `allowed|denied|failed`")
	flags.StringVar(&f.from, "from", "", "events from this `date` or time on (2026-03-03 or RFC 3339)")
	flags.StringVar(&f.to, "to", "", "events before this `date` or time")
	flags.IntVar(&f.limit, "limit", 100, "at most so many events, the newest; 0 is all")
	flags.StringVarP(&f.format, "format", "f", "json", "format of events: `json|csv|ocsf`")
	return cmd
}

func (f *activityListFlags) run(cmd *cobra.Command, global *globalFlags, subject string) error {
	ctx := cmd.Context()
	switch remit.Outcome(f.outcome) {
	case "", remit.Allowed, remit.Denied, remit.Failed:
	default:
		return remit.Errorf(remit.Invalid, "", "no outcome %q: use allowed, denied or failed", f.outcome)
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return err
	}
	if len(systems) == 0 {
		return remit.Errorf(remit.NotFound, "read activity", "no events were read into %s yet: `remit import activity --data-dir %[1]s FILE` reads an audit log", data.path)
	}
	filter := remit.ActivityFilter{}
	if f.system != "" {
		if filter.System, err = knownSystem(systems, f.system); err != nil {
			return err
		}
	}
	var who *remit.Presence
	if subject != "" {
		if who, err = findPresence(ctx, data, systems, filter, subject); err != nil {
			return err
		}
	}
	out := cmd.OutOrStdout()
	switch {
	case f.events || f.credential != "" || f.address != "" || f.action != "" || f.outcome != "" || f.from != "" || f.to != "":
		return f.search(ctx, out, data, filter.System, who)
	case who != nil:
		return showPresence(ctx, out, data, who)
	}
	return listPresences(ctx, out, data, systems, filter)
}

func knownSystem(systems []remit.System, name string) (remit.ID, error) {
	var names []string
	for _, s := range systems {
		if s.Name == name || string(s.ID) == name {
			return s.ID, nil
		}
		names = append(names, s.Name)
	}
	return "", remit.Errorf(remit.NotFound, "", "no system %q: there are %s", name, strings.Join(names, ", "))
}

func systemName(systems []remit.System, id remit.ID) string {
	for _, s := range systems {
		if s.ID == id {
			return s.Name
		}
	}
	return string(id)
}

func findPresence(ctx context.Context, data *dataDir, systems []remit.System, filter remit.ActivityFilter, subject string) (*remit.Presence, error) {
	if remit.ID(subject).Kind() == remit.KindIdentity {
		filter.Identities = []remit.ID{remit.ID(subject)}
	}
	var found []remit.Presence
	err := remit.Each(ctx, filter, data.Store.Presences, func(p remit.Presence) error {
		short := p.Actor.Name
		if p.Actor.Namespace != "" {
			short = p.Actor.Namespace + "/" + p.Actor.Name
		}
		if string(p.Identity) == subject || p.Principal == subject || short == subject || p.Actor.String() == subject {
			found = append(found, p)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, remit.Errorf(remit.NotFound, "", "no identity %q has done anything that was seen: `remit activity` lists those that have", subject)
	case len(found) > 1:
		var which []string
		for _, p := range found {
			which = append(which, fmt.Sprintf("%s in %s (%s)", p.Actor, systemName(systems, p.System), p.Identity))
		}
		return nil, remit.Errorf(remit.Invalid, "", "%d identities are called %q: say --system, or name one by its ID: %s", len(found), subject, strings.Join(which, ", "))
	}
	return &found[0], nil
}

func listPresences(ctx context.Context, w io.Writer, data *dataDir, systems []remit.System, filter remit.ActivityFilter) error {
	var all []remit.Presence
	err := remit.Each(ctx, filter, data.Store.Presences, func(p remit.Presence) error {
		all = append(all, p)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b remit.Presence) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Identity, b.Identity))
	})
	width := len("SYSTEM")
	names := map[remit.ID]string{}
	for _, p := range all {
		if names[p.System] == "" {
			names[p.System] = report.Visible(systemName(systems, p.System))
			width = max(width, len(names[p.System]))
		}
	}
	fmt.Fprintf(w, "%10s %8s  %-20s %-16s %-*s  %s\n", "EVENTS", "DENIED", "LAST (UTC)", "TYPE", width, "SYSTEM", "IDENTITY")
	for _, p := range all {
		fmt.Fprintf(w, "%10d %8d  %-20s %-16s %-*s  %s\n", p.Count, p.Denied, p.Last.UTC().Format("2006-01-02 15:04:05"), p.Type, width, names[p.System], report.Visible(p.Principal))
	}
	return nil
}

// showPresence draws the lineages that an identity's credentials are part of,
// and lists what it used.
func showPresence(ctx context.Context, w io.Writer, data *dataDir, p *remit.Presence) error {
	fmt.Fprintf(w, "%s · %s · %d events from %s to %s UTC, %d denied\n\nCREDENTIALS, and which minted which\n", report.Visible(p.Principal), p.Type, p.Count,
		p.First.UTC().Format("2006-01-02 15:04:05"), p.Last.UTC().Format("2006-01-02 15:04:05"), p.Denied)
	byName := map[string]remit.Lineage{}
	collect := func(filter remit.ActivityFilter, also func(remit.Lineage)) error {
		return remit.Each(ctx, filter, data.Store.Lineage, func(l remit.Lineage) error {
			byName[l.Credential] = l
			if also != nil {
				also(l)
			}
			return nil
		})
	}
	// Its own, what they minted, and upwards to each root.
	var above []string
	own := map[string]bool{}
	if err := collect(remit.ActivityFilter{System: p.System, Identities: []remit.ID{p.Identity}}, func(l remit.Lineage) { own[l.Credential] = true }); err != nil {
		return err
	}
	for c := range own {
		above = append(above, c)
	}
	if len(above) > 0 {
		if err := collect(remit.ActivityFilter{System: p.System, Parents: above}, nil); err != nil {
			return err
		}
	}
	for range 64 {
		var missing []string
		for _, l := range byName {
			if _, ok := byName[l.Parent]; l.Parent != "" && !ok {
				missing = append(missing, l.Parent)
			}
		}
		if len(missing) == 0 {
			break
		}
		before := len(byName)
		if err := collect(remit.ActivityFilter{System: p.System, Credentials: missing}, nil); err != nil {
			return err
		}
		if len(byName) == before {
			break
		}
	}
	all := make([]remit.Lineage, 0, len(byName))
	for _, l := range byName {
		all = append(all, l)
	}
	lineage.Walk(lineage.Forest(all, p.Last, 0), func(b *lineage.Branch, depth int) {
		fmt.Fprintf(w, "  %s%s\n", strings.Repeat("   ", depth), describeBranch(b))
	})
	fmt.Fprintf(w, "\nUSED\n%10s  %-8s %-20s %s\n", "COUNT", "OUTCOME", "LAST (UTC)", "WHAT, BY WHICH BINDING")
	var used []remit.Usage
	err := remit.Each(ctx, remit.ActivityFilter{System: p.System, Identities: []remit.ID{p.Identity}}, data.Store.Usage, func(u remit.Usage) error {
		used = append(used, u)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(used, func(a, b remit.Usage) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Action, b.Action), cmp.Compare(a.Resource.String(), b.Resource.String()), cmp.Compare(a.Root, b.Root))
	})
	for _, u := range used {
		by := ""
		if u.Binding.Name != "" {
			by = " by " + u.Binding.String()
		}
		fmt.Fprintf(w, "%10d  %-8s %-20s %s\n", u.Count, u.Outcome, u.Last.UTC().Format("2006-01-02 15:04:05"), report.Visible(u.Action+" "+u.Resource.String()+by))
	}
	return nil
}

func describeBranch(b *lineage.Branch) string {
	var marks []string
	if b.Parent == "" {
		marks = append(marks, "root")
	}
	if b.SelfMinted {
		marks = append(marks, "MINTED BY ITSELF")
	}
	if b.Forked {
		marks = append(marks, "FORK")
	}
	if !b.Live {
		marks = append(marks, "ended")
	}
	text := b.Credential + " · " + b.Holder.String() + " · " + fmt.Sprint(b.Uses) + " uses"
	if len(b.Addresses) > 0 {
		text += " from " + strings.Join(b.Addresses, ", ")
	}
	if b.Gone > 0 {
		text += fmt.Sprintf(" · and %d that ended", b.Gone)
	}
	if len(marks) > 0 {
		text += " · " + strings.Join(marks, ", ")
	}
	return report.Visible(text)
}

// search prints events of the archive.
func (f *activityListFlags) search(ctx context.Context, w io.Writer, data *dataDir, system remit.ID, who *remit.Presence) error {
	q := archive.Query{
		System: system, Credential: f.credential, Action: f.action, Address: f.address, Outcome: remit.Outcome(f.outcome),
		Limit: f.limit, Raw: f.format == "json",
	}
	var err error
	if q.From, err = dayOrTime("--from", f.from); err != nil {
		return err
	}
	if q.To, err = dayOrTime("--to", f.to); err != nil {
		return err
	}
	if who != nil {
		q.System, q.Identity = who.System, who.Identity
	}
	var write archive.Each
	switch f.format {
	case "json":
		write = archive.WriteJSON(w)
	case "csv":
		write = archive.WriteCSV(w)
	case "ocsf":
		write = archive.WriteOCSF(w)
	default:
		return remit.Errorf(remit.Invalid, "", "no format %q: use json, csv or ocsf", f.format)
	}
	path := filepath.Join(data.path, "archive")
	if _, err := os.Stat(path); err != nil {
		return remit.Errorf(remit.NotFound, "search archive", "there is none in %s: import or receive events first", data.path)
	}
	a, err := archive.Open(path, archive.Options{})
	if err != nil {
		return err
	}
	defer a.Close()
	files, err := activity.Manifest(ctx, data.Store, q.System, q.From, q.To)
	if err != nil {
		return err
	}
	return a.Query(ctx, files, q, write)
}

func dayOrTime(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range [...]string{"2006-01-02", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, remit.Errorf(remit.Invalid, "", "%s %q is no date or time: write 2026-03-03 or 2026-03-03T14:00:00Z", flag, text)
}
