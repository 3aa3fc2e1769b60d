package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/leak"
	"remit/report"
)

func newImportLeaksCommand(global *globalFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "leaks FILE...",
		Short: "Read what a secret scanner found: which credentials have leaked",
		Long: `Import leaks reads reports of secret scanners: gitleaks (JSON), TruffleHog (JSON
lines) and SARIF 2.1.0; "-" is standard input. A leaked secret that is a
credential of the inventory is a critical finding as long as the credential is
valid.

Each secret is turned into a keyed fingerprint at once, and forgotten: what is
kept is the fingerprint, the rule, and where the secret lies. A secret that
matches nothing is remembered too, and becomes a finding when the credential is
read into the inventory later.`,
		Example: `  gitleaks dir . --report-format json --report-path - | remit import leaks - --data-dir ~/.remit
  trufflehog git file://. --json | remit import leaks - --data-dir ~/.remit
  remit import leaks --data-dir ~/.remit results.sarif`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return importLeaks(cmd, global, args, leak.Format(format))
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "how the files are written: `gitleaks|trufflehog|sarif`; the default is to recognise it")
	return cmd
}

func importLeaks(cmd *cobra.Command, global *globalFlags, paths []string, format leak.Format) error {
	if format != "" && !slices.Contains(leak.Formats, format) {
		return remit.Errorf(remit.Invalid, "", "no format %q: use one of %q", format, leak.Formats)
	}
	data, err := openDataDir(cmd.Context(), global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	digester, err := leak.NewDigester(data.Key)
	if err != nil {
		return err
	}
	var leaks []leak.Leak
	for _, path := range paths {
		err := readLeaks(path, cmd.InOrStdin(), format, func(r *leak.Report) error {
			leaks = append(leaks, digester.Digest(r, time.Now()))
			return cmd.Context().Err()
		})
		if err != nil {
			return remit.Errorf(remit.KindOf(err), "import "+report.Visible(path), "%w", err)
		}
	}
	desk := &leak.Desk{Store: data.Store, Digester: digester}
	results, err := desk.Take(cmd.Context(), leaks)
	if err != nil {
		return err
	}
	return writeLeaks(cmd.OutOrStdout(), results)
}

func readLeaks(path string, stdin io.Reader, format leak.Format, each func(*leak.Report) error) error {
	if path == "-" {
		return leak.Decode(stdin, format, each)
	}
	f, err := os.Open(path)
	if err != nil {
		return remit.Errorf(remit.Invalid, "", "%w", err)
	}
	defer f.Close()
	return leak.Decode(f, format, each)
}

// placesShown is how many places of one rule are listed.
const placesShown = 10

// writeLeaks tells what became of leaks: the findings, and by rule what nothing
// matched, so that it is not lost.
func writeLeaks(w io.Writer, results []leak.Result) error {
	findings := map[remit.ID]bool{}
	known, ended, matched := 0, 0, 0
	unmatched := map[string][]*leak.Result{}
	for i := range results {
		r := &results[i]
		if r.Known {
			known++
		}
		for _, id := range r.Findings {
			findings[id] = true
		}
		switch {
		case len(r.Findings) > 0:
			matched++
		case r.Ended > 0:
			ended++
		default:
			key := r.Scanner + " " + r.Rule
			unmatched[key] = append(unmatched[key], r)
		}
	}
	fmt.Fprintf(w, "%s: %d of valid credentials (%s), %d of credentials that have ended, %d that match nothing\n",
		count(len(results), "leaked secret"), matched, count(len(findings), "finding"), ended, len(results)-matched-ended)
	if known > 0 {
		fmt.Fprintf(w, "%d had been reported before\n", known)
	}
	rules := make([]string, 0, len(unmatched))
	for rule := range unmatched {
		rules = append(rules, rule)
	}
	slices.SortFunc(rules, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(unmatched[b]), len(unmatched[a])), cmp.Compare(a, b))
	})
	for _, rule := range rules {
		list := unmatched[rule]
		fmt.Fprintf(w, "\n%s: %d that match nothing\n", report.Visible(rule), len(list))
		for _, r := range list[:min(placesShown, len(list))] {
			redacted := ""
			if r.Redacted {
				redacted = "   (the report hides the secret)"
			}
			fmt.Fprintf(w, "  %s%s\n", report.Visible(r.Place.String()), redacted)
		}
		if more := len(list) - placesShown; more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
	}
	if len(findings) > 0 {
		_, err := fmt.Fprintf(w, "\nNEXT\n  remit findings --policy %s   which, and where they were found\n", leak.Policy)
		return err
	}
	return nil
}
