package main

import (
	"encoding/json"
	"io"
	"iter"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
)

// inventoryFlags choose what `remit inventory` lists.
type inventoryFlags struct {
	readingFlags
	outputFlags
	namespaces, kinds, types, environments []string
	search, owner, at                      string
	unowned, builtIn, neverExpires         bool
	expiresWithin                          time.Duration
}

func newInventoryCommand(global *globalFlags) *cobra.Command {
	var f inventoryFlags
	cmd := &cobra.Command{
		Use:   "inventory [identities|credentials|grants]",
		Short: "List identities, credentials or grants",
		Long: `Inventory lists what there is: identities (the default), credentials or grants.
With a data directory it answers from what was seen, also as it was on a past
day (--at); without one it reads the system first, as "remit scan" does.`,
		Example: `  remit inventory --unowned
  remit inventory credentials --never-expires
  remit inventory grants --namespace payments --at 2026-03-03
  remit inventory --search pay --type service-account --format json`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"identities", "credentials", "grants"},
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "identities"
			if len(args) > 0 {
				what = args[0]
			}
			return f.run(cmd, global, what)
		},
	}
	f.readingFlags.add(cmd)
	f.outputFlags.add(cmd, "table", "json", "csv")
	flags := cmd.Flags()
	flags.StringSliceVarP(&f.namespaces, "namespace", "n", nil, "only in these `namespaces`")
	flags.StringSliceVar(&f.kinds, "kind", nil, "only of these `kinds`, in the system's words, as ServiceAccount")
	flags.StringSliceVar(&f.types, "type", nil, "only of these `types`, in Remit's words, as service-account")
	flags.StringSliceVar(&f.environments, "environment", nil, "only in these `environments`")
	flags.StringVar(&f.search, "search", "", "only with these `words` in the name")
	flags.StringVar(&f.owner, "owner", "", "only identities of this `owner`")
	flags.BoolVar(&f.unowned, "unowned", false, "only identities without an owner")
	flags.BoolVar(&f.builtIn, "built-in", false, "also what the platform brings")
	flags.BoolVar(&f.neverExpires, "never-expires", false, "only credentials without an end")
	flags.DurationVar(&f.expiresWithin, "expires-within", 0, "only credentials and grants that end within this `time`, as 720h")
	flags.StringVar(&f.at, "at", "", "as it was on this `date` or time (2026-03-03 or RFC 3339); needs a data directory")
	return cmd
}

func (f *inventoryFlags) run(cmd *cobra.Command, global *globalFlags, what string) error {
	ctx := cmd.Context()
	if err := f.check(); err != nil {
		return err
	}
	filter := remit.Filter{
		Namespaces: f.namespaces, Kinds: f.kinds, Types: f.types, Environments: f.environments,
		Search: f.search, Owner: f.owner, Unowned: f.unowned,
	}
	if !f.builtIn {
		no := false
		filter.BuiltIn = &no
	}
	if f.neverExpires {
		filter.NeverExpires = &f.neverExpires
	}
	if f.expiresWithin > 0 {
		filter.ExpiresBefore = time.Now().Add(f.expiresWithin)
	}
	if f.at != "" {
		at, err := parseTime(f.at)
		if err != nil {
			return err
		}
		filter.At = at
	}
	data, system, err := f.open(ctx, global)
	if err != nil {
		return err
	}
	defer data.Close()
	filter.System = system
	now := time.Now().UTC()
	source := report.FromStore(ctx, report.Header{Generated: now, Version: versionString()},
		data.Store, data.Store, report.StoreFilter{Inventory: filter})
	return f.write(cmd, func(w io.Writer, o report.TableOptions) error {
		switch what {
		case "credentials":
			return list(w, f.format, source, source.Credentials(), remit.KindCredential, func() error {
				return report.WriteCredentials(w, source.Credentials(), now, o)
			})
		case "grants":
			return list(w, f.format, source, source.Grants(), remit.KindGrant, func() error {
				return report.WriteGrants(w, source.Grants(), o)
			})
		default:
			return list(w, f.format, source, source.Identities(), remit.KindIdentity, func() error {
				return report.WriteIdentities(w, source.Identities(), o)
			})
		}
	})
}

// list writes one kind of record: as JSON lines, as CSV, or as its table.
func list[T any](w io.Writer, format string, source report.Source, records iter.Seq2[T, error], kind remit.RecordKind, table func() error) error {
	switch format {
	case "json":
		return writeLines(w, records)
	case "csv":
		return report.WriteCSV(w, source, report.CSVOptions{Of: kind})
	default:
		return table()
	}
}

// writeLines writes one JSON object a line, which grows with nothing.
func writeLines[T any](w io.Writer, records iter.Seq2[T, error]) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	for r, err := range records {
		if err != nil {
			return err
		}
		if err := lines.Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// parseTime reads a day, which means its end, or a moment.
func parseTime(s string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day.AddDate(0, 0, 1).Add(-time.Microsecond), nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, remit.Errorf(remit.Invalid, "", "%q is no date (2026-03-03) and no time (2026-03-03T14:00:00Z)", s)
	}
	return at, nil
}
