package policy

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"remit"
)

// CaseResult is the outcome of one test that a policy carries.
type CaseResult struct {
	Policy string `json:"policy"`
	Case   string `json:"case"` // its name, or its number
	File   string `json:"file"`
	Line   int    `json:"line"`
	Fault  string `json:"fault,omitempty"` // "" when it passed
}

// Passed says whether the test came out as expected.
func (r CaseResult) Passed() bool { return r.Fault == "" }

// Test runs the tests that the policies of the set carry, each policy by
// itself, through the same steps as a real evaluation. A disabled policy is
// tested as well; one that did not compile fails all its tests. A policy without
// tests is not in the answer.
func Test(ctx context.Context, set *Set) []CaseResult {
	var out []CaseResult
	for _, p := range set.policies {
		for i := range p.Cases {
			c := &p.Cases[i]
			r := CaseResult{Policy: p.ID, Case: c.Name, File: p.File, Line: c.Line}
			if r.Case == "" {
				r.Case = strconv.Itoa(i + 1)
			}
			r.Fault = p.run(ctx, c)
			out = append(out, r)
		}
	}
	return out
}

func (p *Policy) run(ctx context.Context, c *Case) string {
	if p.program == nil {
		return "the policy does not compile"
	}
	// As it is written, alone and everywhere: what a user's override makes of
	// a policy does not break the tests of who wrote it.
	alone := *p
	if p.written != nil {
		alone = *p.written
	}
	alone.Disabled, alone.Scope, alone.Family = false, nil, ""
	if len(c.parameters) > 0 || p.written != nil {
		alone.Parameters = append([]Parameter(nil), alone.Parameters...)
		for _, s := range c.parameters {
			if err := alone.set(s); err != nil {
				return err.message
			}
		}
		env, err := sharedEnv()
		if err != nil {
			return err.Error()
		}
		fault := ""
		alone.compileAll(env, func(_ text, _ int, message string) { fault = message })
		if fault != "" {
			return fault
		}
	}
	set := &Set{policies: []*Policy{&alone}, byID: map[string]*Policy{alone.ID: &alone}}
	e := NewEvaluator(set, newMemory(c.Records, c.Gaps), nil)
	e.Now = func() time.Time { return caseNow }

	var found *remit.Finding
	report, err := e.Check(ctx, systemOfCase(caseSystem), func(f remit.Finding) error {
		if f.Subject.ID == c.Subject {
			found = &f
		}
		return nil
	})
	switch {
	case err != nil:
		return err.Error()
	case len(report.Errors) > 0:
		return "the expression failed: " + report.Errors[0].Message
	case c.Want && found == nil:
		return "should match, does not"
	case !c.Want && found != nil:
		return "should not match, does: " + found.Message
	case c.Severity != "" && found != nil && found.Severity != c.Severity:
		return fmt.Sprintf("severity is %s, should be %s", found.Severity, c.Severity)
	case c.Message != "" && found != nil && found.Message != c.Message:
		return fmt.Sprintf("message is %q, should be %q", found.Message, c.Message)
	}
	return ""
}
