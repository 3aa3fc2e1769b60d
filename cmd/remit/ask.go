package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"remit"
	"remit/report"
	"remit/response"
)

// askFlags are those of the commands that ask for a plan.
type askFlags struct {
	responseFlags
	system  string
	preview bool
	format  string
}

func (f *askFlags) add(cmd *cobra.Command) {
	f.responseFlags.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.system, "system", "", "only in the system of this `name`")
	flags.BoolVar(&f.preview, "plan", false, "show the plan, and change nothing")
	flags.StringVarP(&f.format, "format", "f", "text", "output format: `text|json`")
}

// ask makes a plan about a subject, as want says, and carries it out when nobody
// has to approve it.
func (f *askFlags) ask(cmd *cobra.Command, global *globalFlags, subject string, find finder, want func(*response.Request)) error {
	ctx := cmd.Context()
	if err := planFormat(f.format); err != nil {
		return err
	}
	data, err := openDataDir(ctx, global, false)
	if err != nil {
		return err
	}
	defer data.Close()
	request, err := subjectOf(ctx, data, f.system, subject, find)
	if err != nil {
		return err
	}
	request.AskedBy = f.actor()
	want(&request)
	responses, err := f.responsesOf(global, data, f.preview)
	if err != nil {
		return err
	}
	plan, err := responses.Plan(ctx, request)
	if err != nil {
		return err
	}
	if f.preview {
		return writePlan(cmd.OutOrStdout(), plan, f.format)
	}
	return propose(cmd, responses, plan, f.format)
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
		fmt.Fprintf(cmd.ErrOrStderr(), "\nNEXT\n  remit plans undo %s   gives back what can be given back\n", plan.ID)
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
