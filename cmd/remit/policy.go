package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/policy"
	"remit/report"
)

// loadPolicies loads the built-in policies, the configuration's and those of
// the command line. Documents with faults are told on standard error; the rest
// runs.
func loadPolicies(c *config, paths []string) (*policy.Set, error) {
	var sources []policy.Source
	for _, path := range append(c.Policies[:len(c.Policies):len(c.Policies)], paths...) {
		sources = append(sources, policy.Dir(path))
	}
	set, err := policy.Load(sources...)
	if err != nil {
		return nil, err
	}
	for _, problem := range set.Problems() {
		fmt.Fprintln(os.Stderr, "remit: policy left out: "+report.Visible(problem.String()))
	}
	return set, nil
}

func newEvaluator(set *policy.Set, data *dataDir, now func() time.Time) *policy.Evaluator {
	e := policy.NewEvaluator(set, data.Store, data.Store)
	e.Now = now
	return e
}

func newPolicyCommand(global *globalFlags) *cobra.Command {
	var paths []string
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "List, test and explain the policies",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringArrayVar(&paths, "policies", nil, "`path` of policies of your own, beside the built-in ones; repeatable")
	load := func() (*policy.Set, error) {
		c, err := readConfig(global)
		if err != nil {
			return nil, err
		}
		return loadPolicies(c, paths)
	}
	cmd.AddCommand(newPolicyListCommand(load), newPolicyTestCommand(load), newPolicyExplainCommand(load))
	return cmd
}

func newPolicyListCommand(load func() (*policy.Set, error)) *cobra.Command {
	var output outputFlags
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the policies",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			set, err := load()
			if err != nil {
				return err
			}
			return output.write(cmd, func(w io.Writer, _ report.TableOptions) error {
				if output.format == "json" {
					return json.NewEncoder(w).Encode(set.Policies())
				}
				table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(table, "POLICY\tSEVERITY\tSUBJECT\tRISKS\tTITLE")
				for _, p := range set.Policies() {
					state := ""
					if !p.Runs() {
						state = " (does not run)"
					}
					fmt.Fprintf(table, "%s%s\t%s\t%s\t%s\t%s\n", report.Visible(p.ID), state, p.Severity, p.Subject,
						report.Visible(strings.Join(p.Risks, ",")), report.Visible(p.Title))
				}
				return table.Flush()
			})
		},
	}
	output.add(cmd, "table", "json")
	return cmd
}

func newPolicyTestCommand(load func() (*policy.Set, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "test",
		Short: "Run the tests that the policies carry",
		Long: `Test compiles all policies and runs the tests in them. It ends with exit code 2
when a document has a fault or a test does not come out as it says.`,
		Example: `  remit policy test --policies policies/`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			set, err := load()
			if err != nil {
				return err
			}
			passed, failed := 0, 0
			for _, result := range policy.Test(cmd.Context(), set) {
				if result.Passed() {
					passed++
					continue
				}
				failed++
				fmt.Fprintf(cmd.OutOrStdout(), "%s:%d: %s, test %s: %s\n", report.Visible(result.File), result.Line,
					report.Visible(result.Policy), report.Visible(result.Case), report.Visible(result.Fault))
			}
			faults := len(set.Problems())
			fmt.Fprintf(cmd.OutOrStdout(), "%d policies, %d tests passed, %d failed, %d faults\n", len(set.Policies()), passed, failed, faults)
			if failed+faults > 0 {
				return remit.Errorf(remit.Invalid, "test policies", "%d tests failed, %d documents have a fault", failed, faults)
			}
			return nil
		},
	}
}

func newPolicyExplainCommand(load func() (*policy.Set, error)) *cobra.Command {
	var output outputFlags
	cmd := &cobra.Command{
		Use:   "explain ID",
		Short: "Tell what a policy looks for, why, and what to do",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			set, err := load()
			if err != nil {
				return err
			}
			explanation, err := set.Explain(args[0])
			if err != nil {
				return err
			}
			return output.write(cmd, func(w io.Writer, _ report.TableOptions) error {
				if output.format == "json" {
					document := json.NewEncoder(w)
					document.SetIndent("", "  ")
					return document.Encode(explanation)
				}
				return writePolicy(w, explanation)
			})
		},
	}
	output.add(cmd, "table", "json")
	return cmd
}

func writePolicy(w io.Writer, p policy.Explanation) error {
	var b strings.Builder
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-11s%s\n", name, report.Visible(text))
		}
	}
	block := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(&b, "\n%s\n", name)
			for l := range strings.SplitSeq(text, "\n") {
				fmt.Fprintf(&b, "  %s\n", report.Visible(l))
			}
		}
	}
	fmt.Fprintf(&b, "%s: %s\n\n", report.Visible(p.ID), report.Visible(p.Title))
	severity := string(p.Severity)
	for _, s := range p.SeverityWhen {
		severity += fmt.Sprintf("; %s when %s", s.Severity, s.When)
	}
	line("severity", severity)
	line("subject", string(p.Subject))
	line("risks", strings.Join(p.Risks, ", "))
	line("controls", strings.Join(p.Controls, ", "))
	line("file", fmt.Sprintf("%s:%d", p.File, p.Line))
	line("tests", fmt.Sprint(p.Tests))
	for _, parameter := range p.Parameters {
		text := fmt.Sprintf("%s = %s", parameter.Name, parameter.Value)
		if parameter.Value != parameter.Default {
			text += fmt.Sprintf(" (default %s)", parameter.Default)
		}
		if parameter.Description != "" {
			text += ": " + parameter.Description
		}
		line("parameter", text)
	}
	for _, problem := range p.Problems {
		line("fault", problem.String())
	}
	block("Why it matters", p.Description)
	block("Matches when", p.Match)
	block("What to do", p.Remedy)
	_, err := io.WriteString(w, b.String())
	return err
}
