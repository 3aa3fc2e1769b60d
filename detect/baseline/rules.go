package baseline

import (
	"fmt"
	"time"

	"remit"
)

// Rule is one kind of signal that baselines give.
type Rule struct {
	ID       string
	Title    string
	Severity remit.Severity // the usual one; a signal may have another
	Risks    []string
	Controls []string
	Remedy   string
}

// The rules.
var (
	newOperation = &Rule{
		ID: "baseline-new-operation", Title: "First operation of its kind", Severity: remit.Low,
		Risks:    []string{"T1078", "NHI5"},
		Controls: atypical,
		Remedy:   "Ask the owner whether this is new work. If it is not, look at what else the identity did since, and take the permission away.",
	}
	newResource = &Rule{
		ID: "baseline-new-resource", Title: "First access to a kind of resource", Severity: remit.Low,
		Risks:    []string{"T1078", "NHI5"},
		Controls: atypical,
		Remedy:   "Ask the owner whether the identity needs this resource. If it does not, take the permission away.",
	}
	newNetwork = &Rule{
		ID: "baseline-new-network", Title: "First use from a network", Severity: remit.Low,
		Risks:    []string{"T1078", "T1550.001", "NHI2"},
		Controls: atypical,
		Remedy:   "Find out whose network it is. If it is not known, rotate the credential and look at what was done from there.",
	}
	newAgent = &Rule{
		ID: "baseline-new-agent", Title: "First use with a program", Severity: remit.Low,
		Risks:    []string{"T1078", "NHI10"},
		Controls: atypical,
		Remedy:   "Find out who used the program. A person who uses a machine's credential should have an identity of his own.",
	}
	unlikePeers = &Rule{
		ID: "baseline-unlike-peers", Title: "A new identity does what its peers do not", Severity: remit.Info,
		Risks:    []string{"T1078", "T1136", "NHI5"},
		Controls: atypical,
		Remedy:   "Compare its permissions with those of its peers, and take away what it does not need.",
	}
	unusualTime = &Rule{
		ID: "baseline-unusual-time", Title: "Active at an unusual time", Severity: remit.Info,
		Risks:    []string{"T1078"},
		Controls: atypical,
		Remedy:   "Ask the owner whether the activity at this time was meant.",
	}
	volume = &Rule{
		ID: "baseline-volume", Title: "Far more activity than usual", Severity: remit.Low,
		Risks:    []string{"T1078", "T1613"},
		Controls: atypical,
		Remedy:   "Look at what was read or changed. If nobody rolled anything out, contain the credential.",
	}
	denials = &Rule{
		ID: "baseline-denials", Title: "Far more denials than usual", Severity: remit.Low,
		Risks:    []string{"T1078", "T1613"},
		Controls: atypical,
		Remedy:   "Look at what was tried. A workload that lost a permission tries one thing again and again; one who explores tries many.",
	}
	failures = &Rule{
		ID: "baseline-failures", Title: "Far more errors than usual", Severity: remit.Info,
		Risks:    []string{"T1078"},
		Controls: atypical,
		Remedy:   "Look at the errors' reasons. Most often something is broken rather than attacked.",
	}
	dormantWakes = &Rule{
		ID: "baseline-dormant-wakes", Title: "A dormant identity is active again", Severity: remit.Low,
		Risks:    []string{"T1078", "NHI1"},
		Controls: []string{"NIST SP 800-53 AC-2(3)", "NIST SP 800-53 AC-2(12)", "PCI DSS 8.2.6", "SOC 2 CC7.2", "ISO/IEC 27001 A.5.18"},
		Remedy:   "Ask the owner whether the identity is still needed. If it is not, disable it; if it is, rotate its credentials.",
	}
	concurrentUse = &Rule{
		ID: "baseline-concurrent-use", Title: "One credential in use at two places at once", Severity: remit.Medium,
		Risks:    []string{"T1528", "T1550.001", "NHI2"},
		Controls: []string{"NIST SP 800-53 AC-2(12)", "NIST SP 800-53 SI-4", "SOC 2 CC6.6", "SOC 2 CC7.2", "ISO/IEC 27001 A.8.16"},
		Remedy:   "Treat the credential as stolen: cut its lineage at the root, delete the pod that it is bound to, and find out how it was read.",
	}
	cadenceFork = &Rule{
		ID: "baseline-cadence-fork", Title: "A second renewer of an identity's tokens", Severity: remit.Medium,
		Risks:    []string{"T1528", "T1550.001", "T1098.001", "NHI2"},
		Controls: []string{"NIST SP 800-53 AC-2(12)", "NIST SP 800-53 IA-5", "NIST SP 800-53 SI-4", "SOC 2 CC6.1", "SOC 2 CC7.2", "ISO/IEC 27001 A.5.17", "ISO/IEC 27001 A.8.16"},
		Remedy:   "Somebody keeps himself a valid token. Freeze minting for the credential, cut the lineage at its root, and take the right to mint tokens (create serviceaccounts/token) away from the identity.",
	}

	atypical   = []string{"NIST SP 800-53 AC-2(12)", "NIST SP 800-53 SI-4", "SOC 2 CC7.2", "ISO/IEC 27001 A.8.16", "NIST CSF DE.AE"}
	firstRules = [kindsOfThings]*Rule{networks: newNetwork, agentsUsed: newAgent, operations: newOperation, resources: newResource}
)

// Rules returns the rules, for documentation and for pages that list them. The
// caller must not change what the slices inside refer to.
func Rules() []Rule {
	return []Rule{
		*cadenceFork, *concurrentUse, *newOperation, *newResource, *newNetwork, *newAgent,
		*unlikePeers, *unusualTime, *volume, *denials, *failures, *dormantWakes,
	}
}

func (s *seen) signal(r *Rule, words string) remit.Signal {
	a := s.a
	signal := remit.Signal{
		Rule: r.ID, Title: r.Title, Severity: r.Severity, Risks: r.Risks, Controls: r.Controls, Remedy: r.Remedy,
		Words: words, Time: a.Time, Event: a.ID,
	}
	add := func(name, value string) {
		if value != "" {
			signal.Evidence = append(signal.Evidence, remit.Fact{Name: name, Value: value})
		}
	}
	add("Action", s.what())
	add("Address", shown(a.Address))
	add("User agent", shown(a.UserAgent))
	return signal
}

// what names the operation: "create Secret in payments".
func (s *seen) what() string {
	a := s.a
	words := or(shown(a.Action), "act")
	if a.Resource.Kind != "" {
		words += " " + shown(a.Resource.Kind)
	}
	return words + in(a.Resource.Namespace)
}

func (s *seen) whence() string {
	if s.a.Address == "" {
		return ""
	}
	return " from " + shown(s.a.Address)
}

func (s *seen) network() string {
	if s.from.ip {
		return where(s.from.network, true)
	}
	return shown(s.a.Address)
}

func in(namespace string) string {
	if namespace == "" {
		return ""
	}
	return " in " + shown(namespace)
}

func shownRef(r remit.Ref) string {
	name := shown(r.Name)
	if r.Namespace != "" {
		name = shown(r.Namespace) + "/" + name
	}
	if r.Kind == "" {
		return name
	}
	return shown(r.Kind) + " " + name
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func date(t uint32) string { return time.Unix(int64(t), 0).UTC().Format(time.DateOnly) }

// span writes a number of seconds as one would say it: "40 s", "10 min",
// "1 h 20 min", "3 days".
func span(seconds uint32) string {
	switch {
	case seconds < 100:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 100*60:
		return fmt.Sprintf("%d min", (seconds+30)/60)
	case seconds < 2*day:
		if minutes := (seconds + 30) / 60; minutes%60 != 0 {
			return fmt.Sprintf("%d h %d min", minutes/60, minutes%60)
		}
		return fmt.Sprintf("%d h", (seconds+30)/hour)
	}
	return fmt.Sprintf("%d days", (seconds+day/2)/day)
}
