package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
)

func newExplainCommand(global *globalFlags) *cobra.Command {
	var reading readingFlags
	var output outputFlags
	cmd := &cobra.Command{
		Use:   "explain NAME",
		Short: "Tell everything known of one identity, and why each finding",
		Long: `Explain tells of one identity who answers for it, what it may do, with which
credentials, who can act as it, what changed, and why each finding was raised.

NAME is a name ("api"), a name in a namespace ("payments/api"), with a kind where
several share it ("ServiceAccount/payments/api"), the name in the audit log
("system:serviceaccount:payments:api"), or an ID of an identity or a finding.`,
		Example: `  remit explain payments/api
  remit explain User/alice@example.com --context prod`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := output.check(); err != nil {
				return err
			}
			c, err := readConfig(global)
			if err != nil {
				return err
			}
			data, system, err := reading.open(cmd.Context(), global)
			if err != nil {
				return err
			}
			defer data.Close()
			return output.explain(cmd, c, data, system, args[0], time.Now())
		},
	}
	reading.add(cmd)
	output.add(cmd, "table", "json")
	return cmd
}

// explain finds an identity by name and writes what is known of it.
func (f *outputFlags) explain(cmd *cobra.Command, c *config, data *dataDir, system remit.ID, name string, now time.Time) error {
	ctx := cmd.Context()
	identity, err := findIdentity(ctx, data, system, name)
	if err != nil {
		return err
	}
	explanation, err := report.ExplainFromStore(ctx, data.Store, data.Store, identity.ID, now.UTC())
	if err != nil {
		return err
	}
	if explanation.Standings, err = standings(ctx, c, data, identity.System, explanation.Credentials, now.UTC()); err != nil {
		return err
	}
	return f.write(cmd, func(w io.Writer, o report.TableOptions) error {
		if f.format == "json" {
			document := json.NewEncoder(w)
			document.SetIndent("", "  ")
			return document.Encode(explanation)
		}
		return report.WriteExplain(w, explanation, o)
	})
}

// findIdentity finds the one identity that a user means.
func findIdentity(ctx context.Context, data *dataDir, system remit.ID, name string) (remit.Identity, error) {
	const op = "find identity"
	filters, err := identityFilters(ctx, data, system, name)
	if err != nil {
		return remit.Identity{}, err
	}
	for _, filter := range filters {
		filter.System = system
		found, _, err := data.Store.Identities(ctx, filter, remit.PageRequest{Limit: 20})
		if err != nil {
			return remit.Identity{}, err
		}
		switch len(found) {
		case 0:
			continue
		case 1:
			return found[0], nil
		}
		var names []string
		for _, i := range found {
			names = append(names, fullName(i.Ref))
		}
		return remit.Identity{}, remit.Errorf(remit.Invalid, op, "%q may be any of %s: name one of them", name, strings.Join(names, ", "))
	}
	return remit.Identity{}, remit.Errorf(remit.NotFound, op,
		"no identity is called %q: `remit inventory --search WORD` finds by a part of the name", name)
}

// identityFilters are the ways to understand a name, the most exact first.
func identityFilters(ctx context.Context, data *dataDir, system remit.ID, name string) ([]remit.Filter, error) {
	switch id := remit.ID(name); id.Kind() {
	case remit.KindIdentity:
		return []remit.Filter{{IDs: []remit.ID{id}}}, nil
	case remit.KindFinding:
		found, _, err := data.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{id}}, remit.PageRequest{Limit: 1})
		if err != nil || len(found) == 0 {
			return nil, err
		}
		concerned := found[0].Identity
		if concerned == "" {
			concerned = found[0].Subject.ID
		}
		return []remit.Filter{{IDs: []remit.ID{concerned}}}, nil
	}
	if account, ok := strings.CutPrefix(name, "system:serviceaccount:"); ok {
		if namespace, account, ok := strings.Cut(account, ":"); ok {
			return []remit.Filter{{Kinds: []string{"ServiceAccount"}, Namespaces: []string{namespace}, Names: []string{account}}}, nil
		}
	}
	if node, ok := strings.CutPrefix(name, "system:node:"); ok {
		return []remit.Filter{{Kinds: []string{"Node"}, Names: []string{node}}}, nil
	}
	filters := []remit.Filter{{Names: []string{name}}}
	if first, rest, ok := strings.Cut(name, "/"); ok {
		inNamespace := []remit.Filter{
			// payments/api is the account before the workload of that name.
			{Kinds: []string{"ServiceAccount"}, Namespaces: []string{first}, Names: []string{rest}},
			{Namespaces: []string{first}, Names: []string{rest}},
			{Kinds: []string{first}, Names: []string{rest}},
		}
		if namespace, last, ok := strings.Cut(rest, "/"); ok {
			inNamespace = append(inNamespace, remit.Filter{Kinds: []string{first}, Namespaces: []string{namespace}, Names: []string{last}})
		}
		filters = append(inNamespace, filters...)
	}
	return filters, nil
}

// fullName is a name that identityFilters understands as exactly this one.
func fullName(r remit.Ref) string {
	if r.Namespace == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Namespace + "/" + r.Name
}
