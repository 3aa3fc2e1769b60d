package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/valyala/fastjson"

	"remit"
	"remit/activity"
	"remit/connector"
	"remit/detect"
	"remit/detect/rules"
	"remit/detect/sigma"
	"remit/report"
)

func newRulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Look at the detection rules, test them, and try them on events",
	}
	cmd.AddCommand(newRulesListCommand(), newRulesTestCommand(), newRulesExplainCommand(), newRulesCoverageCommand(), newRulesRunCommand())
	return cmd
}

// tell writes what of the rules cannot be evaluated.
func tell(w io.Writer, unsupported []sigma.Unsupported, faulty []error) {
	for _, err := range faulty {
		fmt.Fprintf(w, "not loaded: %s\n", report.Visible(err.Error()))
	}
	for _, u := range unsupported {
		reason := u.Reason
		if !strings.HasPrefix(reason, u.Rule.Path) {
			reason = u.Rule.Path + ": " + reason
		}
		fmt.Fprintf(w, "not evaluated: %s: %s\n", report.Visible(ruleName(u.Rule)), report.Visible(reason))
	}
}

func newRulesListCommand() *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use: "list", Short: "List the rules", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, faulty, err := f.load()
			if err != nil {
				return err
			}
			for _, r := range all {
				fmt.Fprintf(cmd.OutOrStdout(), "%-14s %-56s %s\n", report.Visible(r.Level), report.Visible(ruleName(r)), report.Visible(r.Title))
			}
			tell(cmd.ErrOrStderr(), nil, faulty)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// ruleName is what findings call a rule: ours by their names, others by their
// UUIDs.
func ruleName(r *sigma.Rule) string {
	if _, ours := r.Custom["remit"]; ours && r.Name != "" {
		return r.Name
	}
	return r.Ref()
}

func newRulesTestCommand() *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Run the tests that rules carry, and name what cannot be evaluated",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, faulty, err := f.load()
			if err != nil {
				return err
			}
			_, unsupported := sigma.Compile(all, ruleOptions())
			tell(cmd.ErrOrStderr(), unsupported, faulty)
			results := rules.Test(all, ruleOptions())
			ran, failed := 0, 0
			for _, r := range results {
				if r.Test == "" && remit.KindOf(r.Err) == remit.Unsupported {
					continue // is told already, and no test
				}
				ran++
				if r.OK() {
					continue
				}
				failed++
				test := report.Visible(ruleName(r.Rule))
				if r.Test != "" {
					test += ": " + report.Visible(r.Test)
				}
				if r.Err != nil {
					fmt.Fprintf(cmd.OutOrStdout(), "FAIL %s: %s\n", test, report.Visible(r.Err.Error()))
				} else {
					fmt.Fprintf(cmd.OutOrStdout(), "FAIL %s: matched %t, expected %t\n", test, r.Got, r.Expect)
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s, %s, %d failed, %d not evaluated, %d not loaded\n", count(len(all), "rule"), count(ran, "test"), failed, len(unsupported), len(faulty))
			if failed > 0 || len(faulty) > 0 {
				return remit.Errorf(remit.Invalid, "test rules", "%s failed and %s could not be loaded", count(failed, "test"), count(len(faulty), "document"))
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newRulesExplainCommand() *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use:   "explain RULE",
		Short: "Tell what a rule looks for, how bad it is and what to do",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			all, _, err := f.load()
			if err != nil {
				return err
			}
			for _, r := range all {
				if r.ID == args[0] || r.Name == args[0] || strings.EqualFold(r.Title, args[0]) {
					return explainRule(cmd.OutOrStdout(), r)
				}
			}
			return remit.Errorf(remit.NotFound, "explain rule", "no rule has the name, the ID or the title %q: `%s rules list` lists them", args[0], cmd.Root().Name())
		},
	}
	f.add(cmd)
	return cmd
}

func explainRule(w io.Writer, r *sigma.Rule) error {
	show := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-15s %s\n", name, report.Visible(strings.TrimSpace(value)))
		}
	}
	show("rule", ruleName(r))
	show("title", r.Title)
	show("level", r.Level)
	show("events", r.Logsource.String())
	show("description", r.Description)
	show("risks", strings.Join(r.Risks, ", "))
	if meta, err := rules.Of(r); err == nil {
		show("also", strings.Join(meta.Risks, ", "))
		show("controls", strings.Join(meta.Controls, ", "))
		show("remedy", meta.Remedy)
	}
	show("false positives", strings.Join(r.FalsePositives, "; "))
	show("references", strings.Join(r.References, " "))
	return nil
}

func newRulesCoverageCommand() *cobra.Command {
	var f rulesFlags
	cmd := &cobra.Command{
		Use:   "coverage",
		Short: "Count the rules for each ATT&CK technique and OWASP risk, and name those that cannot match",
		Long: `Coverage counts, for each ATT&CK technique and OWASP risk, the rules that look for
it. On standard error it names the rules that cannot be evaluated, those for
systems whose events Remit does not read, and those that ask for a field which no
event of their source has.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			engine, unsupported, faulty, err := f.engine()
			if err != nil {
				return err
			}
			risks := map[string]int{}
			for _, r := range engine.Rules() {
				all := slices.Clone(r.Risks)
				if meta, err := rules.Of(r); err == nil {
					all = append(all, meta.Risks...)
				}
				slices.Sort(all)
				for _, risk := range slices.Compact(all) {
					risks[risk]++
				}
			}
			for _, risk := range slices.Sorted(maps.Keys(risks)) {
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %4d\n", report.Visible(risk), risks[risk])
			}
			tell(cmd.ErrOrStderr(), unsupported, faulty)
			tellUnmet(cmd.ErrOrStderr(), engine)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// tellUnmet names rules that are evaluated and yet cannot match an event.
func tellUnmet(w io.Writer, engine *sigma.Engine) {
	products := map[string]bool{"": true}
	for _, d := range decoders {
		products[d.Source().Product] = true
	}
	for l := range fieldAliases {
		products[l.Product] = true
	}
	unread := map[string]int{}
	for _, r := range engine.Rules() {
		if r.Kind != sigma.Detection {
			continue
		}
		if !products[r.Logsource.Product] {
			unread[r.Logsource.String()]++
			continue
		}
		known := fields[r.Logsource.Product]
		if known == nil {
			continue
		}
		for _, f := range engine.FieldsOf(r) {
			if !slices.ContainsFunc(append([]string{f.Name}, f.Paths...), func(path string) bool {
				first, _, _ := strings.Cut(path, ".")
				return slices.Contains(known, first)
			}) {
				fmt.Fprintf(w, "unknown field: %s: %s: no event of %s has a field %s\n",
					report.Visible(ruleName(r)), report.Visible(r.Path), report.Visible(r.Logsource.String()), report.Visible(f.Name))
			}
		}
	}
	for _, l := range slices.Sorted(maps.Keys(unread)) {
		fmt.Fprintf(w, "never asked: %s for %s, whose events Remit does not read\n", count(unread[l], "rule"), report.Visible(l))
	}
}

// rulesRunFlags choose what `remit rules run` evaluates.
type rulesRunFlags struct {
	rulesFlags
	source string
}

func newRulesRunCommand() *cobra.Command {
	var f rulesRunFlags
	cmd := &cobra.Command{
		Use:   "run FILE",
		Short: "Evaluate the rules on raw events, one a line, and print what matched",
		Long: `Run reads raw events, one JSON object a line, and prints for each a JSON object
with the number of its line, what was attributed and the rules that matched. With
--source none the events are flat maps of fields, and every rule is evaluated on
them whatever its logsource. "-" is standard input. Nothing is stored.`,
		Example: `  remit rules run audit.log
  remit rules run --source aws-cloudtrail --rules sigma/rules/cloud/aws events.jsonl`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.source, "source", "", "`source` of the events, or none; the default is to recognise it")
	return cmd
}

// attributed is what `remit rules run` prints of an event, in the log's words.
type attributed struct {
	ID         string        `json:"id,omitempty"`
	Source     string        `json:"source,omitempty"`
	System     string        `json:"system,omitempty"`
	Time       time.Time     `json:"time,omitzero"`
	Identity   string        `json:"identity"`
	Actor      remit.Ref     `json:"actor"`
	As         *remit.Ref    `json:"as,omitempty"`
	Chain      []remit.Ref   `json:"chain,omitempty"`
	Credential string        `json:"credential,omitempty"`
	Minted     *remit.Minted `json:"minted,omitempty"`
	Action     string        `json:"action"`
	Resource   remit.Ref     `json:"resource"`
	Address    string        `json:"address,omitempty"`
	UserAgent  string        `json:"user_agent,omitempty"`
	Outcome    remit.Outcome `json:"outcome,omitempty"`
	Code       int           `json:"code,omitempty"`
	Reason     string        `json:"reason,omitempty"`
}

type ruleLine struct {
	Line     int         `json:"line"`
	Activity *attributed `json:"activity"`
	Rules    []string    `json:"rules"`
	Error    string      `json:"error,omitempty"`
}

func (f *rulesRunFlags) run(cmd *cobra.Command, path string) error {
	ctx := cmd.Context()
	flat := f.source == "none"
	var decoder connector.Decoder
	if !flat {
		var err error
		if decoder, err = decoderNamed(f.source); err != nil {
			return err
		}
	}
	engine, unsupported, faulty, err := f.engine()
	if err != nil {
		return err
	}
	tell(cmd.ErrOrStderr(), unsupported, faulty)
	detector, err := detect.New(ctx, detect.Options{Engine: engine, BaselineOff: true})
	if err != nil {
		return err
	}
	in := cmd.InOrStdin()
	if path != "-" {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return remit.Errorf(remit.NotFound, "read events", "%s does not exist", path)
		case err != nil:
			return remit.Errorf(remit.Unavailable, "read events", "%w", err)
		case info.IsDir():
			return remit.Errorf(remit.Invalid, "read events", "%s is a directory: name one file", path)
		}
		file, err := os.Open(path)
		if err != nil {
			return remit.Errorf(remit.Unavailable, "read events", "%w", err)
		}
		defer file.Close()
		in = file
	}
	out := bufio.NewWriter(cmd.OutOrStdout())
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	var parser fastjson.Parser
	var intern connector.Interner
	var e connector.Event
	one := func(line int, v *fastjson.Value) error {
		e.Reset()
		result := ruleLine{Line: line, Rules: []string{}}
		if flat {
			e.Views = append(e.Views, connector.View{JSON: v})
		} else {
			d := decoder
			if d == nil {
				d = activity.Recognize(decoders, v)
			}
			if d == nil {
				result.Error = "an event of no source that Remit knows"
				return lines.Encode(result)
			}
			if err := d.Decode(v, &intern, &e); errors.Is(err, connector.ErrIgnored) {
				return lines.Encode(result) // the first stage of a request
			} else if err != nil {
				result.Error = err.Error()
				return lines.Encode(result)
			}
			result.Activity = attributedOf(&e.Activity, d)
		}
		signals, err := detector.Match(ctx, &e, flat)
		if err != nil {
			return err
		}
		for _, s := range signals {
			result.Rules = append(result.Rules, s.Rule)
		}
		slices.Sort(result.Rules)
		result.Rules = slices.Compact(result.Rules)
		return lines.Encode(result)
	}
	err = activity.Documents(in, func(doc []byte, line int, _ int64) error {
		v, err := parser.ParseBytes(doc)
		if err != nil {
			return lines.Encode(ruleLine{Line: line, Rules: []string{}, Error: "not JSON: " + err.Error()})
		}
		if flat {
			return one(line, v)
		}
		d := decoder
		if d == nil {
			d = activity.Recognize(decoders, v)
		}
		if d == nil {
			return one(line, v)
		}
		for _, each := range d.Split(v) {
			if err := one(line, each); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return notWritten(out.Flush())
}

func attributedOf(a *remit.Activity, d connector.Decoder) *attributed {
	out := &attributed{
		ID: a.ID, Source: d.Source().Name, System: a.Native, Time: a.Time, Identity: a.Principal, Actor: a.Actor, Chain: a.Chain,
		Credential: a.Credential, Action: a.Action, Resource: a.Resource, Address: a.Address, UserAgent: a.UserAgent,
		Outcome: a.Outcome, Code: a.Code, Reason: a.Reason,
	}
	if a.As != (remit.Ref{}) {
		out.As = &a.As
	}
	if a.Minted.Credential != "" || a.Minted.For != (remit.Ref{}) {
		out.Minted = &a.Minted
	}
	return out
}
