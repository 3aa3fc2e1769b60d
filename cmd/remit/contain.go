package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
	"remit/response"
)

func newContainCommand(global *globalFlags) *cobra.Command {
	var f responseFlags
	var q containQuestion
	cmd := &cobra.Command{
		Use:   "contain SUBJECT",
		Short: "Cut an identity, a credential or what a finding names off from its system, undoably",
		Long: `Contain makes a plan that cuts a subject off from its system, and carries it out
when the configuration asks for no approval; otherwise the plan waits for
"remit plans approve". With --plan it shows what it would do and changes nothing.

The subject is an identity (by its name, its ID or as the log names it), a
credential as the log writes it (JTI=…, X509SHA256=…), or the ID of a finding.

Left alone, Remit takes the mildest grade that cuts: tokens that were minted by
the identity's own tokens can neither mint nor write any more, and those that
they descend from, which the workload uses as well, can mint no more. --grade
asks for others, which may be combined:

  freeze-credentials   the listed credentials can neither mint nor write
  remove-grants        the identity loses every grant that names it
  kill-tokens          every token of the service account ends; cannot be undone`,
		Example: `  remit contain system:serviceaccount:shop:worker-3 --plan
  remit contain fnd_4k2… --as alice
  remit contain JTI=4c5… --grade freeze-credentials`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.subject = args[0]
			return contain(cmd, global, &f, q)
		},
	}
	f.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&q.system, "system", "", "only in the system of this `name`")
	flags.BoolVar(&q.preview, "plan", false, "show the plan, and change nothing")
	flags.StringSliceVar(&q.grades, "grade", nil, "the `grades` of containment; the default is the mildest that cuts")
	flags.StringVarP(&q.format, "format", "f", "text", "output format: `text|json`")
	return cmd
}

// containQuestion is what the user said.
type containQuestion struct {
	subject, system, format string
	grades                  []string
	preview                 bool
}

func contain(cmd *cobra.Command, global *globalFlags, f *responseFlags, q containQuestion) error {
	ctx := cmd.Context()
	if err := planFormat(q.format); err != nil {
		return err
	}
	var grades []remit.Grade
	for _, name := range q.grades {
		if !slices.Contains(remit.Grades, remit.Grade(name)) {
			return remit.Errorf(remit.Invalid, "", "no grade %q: use freeze-credentials, remove-grants or kill-tokens", name)
		}
		grades = append(grades, remit.Grade(name))
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	request, err := subjectOf(ctx, data, q.system, q.subject)
	if err != nil {
		return err
	}
	request.Action, request.Grades, request.AskedBy = remit.Contain, grades, f.actor()
	responses, err := f.responsesOf(global, data, q.preview)
	if err != nil {
		return err
	}
	plan, err := responses.Plan(ctx, request)
	if err != nil {
		return err
	}
	if q.preview {
		return writePlan(cmd.OutOrStdout(), plan, q.format)
	}
	return propose(cmd, responses, plan, q.format)
}

// propose stores a plan, and carries it out when nobody has to approve it.
func propose(cmd *cobra.Command, responses *response.Responses, plan remit.Response, format string) error {
	ctx := cmd.Context()
	plan, err := responses.Propose(ctx, plan)
	if err != nil {
		return err
	}
	if plan.State == remit.ResponseApproved {
		if plan, err = responses.CarryOut(ctx, plan.ID); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "plan %s is %s\n", plan.ID, plan.State)
			return err
		}
	}
	if err := writePlan(cmd.OutOrStdout(), plan, format); err != nil {
		return err
	}
	if plan.State == remit.ResponseProposed {
		fmt.Fprintf(cmd.ErrOrStderr(), "\nNEXT\n  somebody else: remit plans approve %s\n", plan.ID)
	} else {
		fmt.Fprintf(cmd.ErrOrStderr(), "\nNEXT\n  remit plans undo %s   gives it back\n", plan.ID)
	}
	return nil
}

// planFormat refuses a format of which there is none.
func planFormat(format string) error {
	if format != "text" && format != "json" {
		return remit.Errorf(remit.Invalid, "", "no format %q: use text or json", format)
	}
	return nil
}

func writePlan(w io.Writer, plan remit.Response, format string) error {
	if format == "json" {
		document := json.NewEncoder(w)
		document.SetIndent("", "  ")
		return document.Encode(plan)
	}
	return report.WritePlan(w, plan)
}

// subjectOf finds what the user means: a finding, a credential of the log, or an
// identity of the inventory or the log.
func subjectOf(ctx context.Context, data *dataDir, system, name string) (q response.Request, err error) {
	systems, err := data.Store.Systems(ctx)
	if err != nil {
		return q, err
	}
	if system != "" {
		if q.System, err = knownSystem(systems, system); err != nil {
			return q, err
		}
	}
	if remit.ID(name).Kind() == remit.KindFinding {
		found, _, err := data.Store.Findings(ctx, remit.FindingFilter{IDs: []remit.ID{remit.ID(name)}}, remit.PageRequest{Limit: 1})
		if err != nil {
			return q, err
		}
		if len(found) == 0 {
			return q, remit.Errorf(remit.NotFound, "", "there is no finding %s", name)
		}
		q.Cause, q.Opening, q.Suspects = name, found[0].Reopened, found[0].Credentials
	}
	if strings.Contains(name, "=") {
		return credentialSubject(ctx, data, systems, q, name)
	}
	identity, err := findIdentity(ctx, data, q.System, name)
	switch remit.KindOf(err) {
	case "":
		q.System, q.Identity, q.IdentityID = identity.System, identity.Ref, identity.ID
	case remit.NotFound:
		p, missing := findPresence(ctx, data, systems, remit.ActivityFilter{System: q.System}, name)
		if missing != nil {
			return q, err
		}
		q.System, q.Identity, q.IdentityID = p.System, p.Actor, p.Identity
	default:
		return q, err
	}
	q.Subject = remit.Subject{Record: remit.KindIdentity, Ref: q.Identity, ID: q.IdentityID}
	return q, nil
}

// credentialSubject finds a credential by how the log writes it.
func credentialSubject(ctx context.Context, data *dataDir, systems []remit.System, q response.Request, name string) (response.Request, error) {
	found, _, err := data.Store.Lineage(ctx, remit.ActivityFilter{System: q.System, Credentials: []string{name}}, remit.PageRequest{Limit: 2})
	switch {
	case err != nil:
		return q, err
	case len(found) == 0:
		return q, remit.Errorf(remit.NotFound, "", "the log has shown no credential %q: name the identity that holds it", name)
	case len(found) > 1:
		return q, remit.Errorf(remit.Invalid, "", "%s is known in %s and in %s: say --system", name, systemName(systems, found[0].System), systemName(systems, found[1].System))
	}
	l := found[0]
	ref := remit.Ref{Kind: "Credential", Name: name}
	q.System, q.Identity, q.IdentityID, q.Credential = l.System, l.Holder, l.Identity, name
	q.Subject = remit.Subject{Record: remit.KindCredential, Ref: ref, ID: remit.CredentialID(l.System, ref, "")}
	return q, nil
}
