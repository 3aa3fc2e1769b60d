package report

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"remit"
)

// The words in which reports for people speak of records.

// place is a name as people write it: namespace/name. It does not escape.
func place(r remit.Ref) string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// ref is a name with its kind in front. It does not escape.
func ref(r remit.Ref) string {
	if r.Kind == "" {
		return place(r)
	}
	return r.Kind + " " + place(r)
}

// shellSafe matches what can be typed into any shell as it is. A name decides
// what a suggested command does when it is copied, so any other goes by its ID.
var shellSafe = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,120}$`)

// argument is how to name a record on the command line.
func argument(r remit.Ref, id remit.ID) string {
	if name := place(r); shellSafe.MatchString(name) {
		return name
	}
	if name := string(id); shellSafe.MatchString(name) {
		return name
	}
	return "NAME"
}

var typeWords = map[remit.IdentityType]string{
	remit.Human:          "human",
	remit.ServiceAccount: "service account",
	remit.Workload:       "workload",
	remit.Application:    "application",
	remit.Agent:          "AI agent",
	remit.AssumableRole:  "assumable role",
	remit.Group:          "group",
}

// typeWord is the type of an identity in words, with the system's own word
// behind it where that says more.
func typeWord(i *remit.Identity) string {
	word := cmp.Or(typeWords[i.Type], string(i.Type), "identity")
	if i.Kind == "" || strings.EqualFold(i.Kind, strings.ReplaceAll(word, " ", "")) {
		return word
	}
	return word + " (" + i.Kind + ")"
}

// ownerWord is who answers for an identity, and whether that is a worry; "" where
// nobody has to.
func ownerWord(i *remit.Identity) (word string, worry bool) {
	if len(i.Owners) == 0 {
		if unowned(i) {
			return "no owner", true
		}
		return "", false
	}
	first := i.Owners[0]
	word = "owner " + first.Name
	if first.Status == remit.OwnerLeft {
		return word + " (has left)", true
	}
	if more := len(i.Owners) - 1; more > 0 {
		word += fmt.Sprintf(" and %d more", more)
	}
	return word, false
}

// connectorTitles are the names of platforms as their makers write them.
var connectorTitles = map[string]string{
	"kubernetes": "Kubernetes",
	"aws":        "AWS",
	"azure":      "Azure",
	"gcp":        "Google Cloud",
	"github":     "GitHub",
	"gitlab":     "GitLab",
	"postgres":   "PostgreSQL",
	"postgresql": "PostgreSQL",
	"mysql":      "MySQL",
	"openbao":    "OpenBao",
	"vault":      "Vault",
	"okta":       "Okta",
	"keycloak":   "Keycloak",
	"slack":      "Slack",
}

// platform is what a system is, with its version.
func platform(s *remit.System) string {
	word := cmp.Or(connectorTitles[s.Connector], s.Connector)
	if s.Version != "" {
		word += " " + s.Version
	}
	return word
}

// number writes a count with its thousands apart.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// count is a number with its noun, which is given for one and for many.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

func severityStyle(s remit.Severity) style {
	switch s {
	case remit.Critical:
		return alarm
	case remit.High:
		return red
	case remit.Medium:
		return yellow
	case remit.Low:
		return cyan
	}
	return faint
}

// severities counts findings in words, the worst first.
func severities(n func(remit.Severity) int) []span {
	var pieces []span
	for i := len(remit.Severities) - 1; i >= 0; i-- {
		s := remit.Severities[i]
		if c := n(s); c > 0 {
			pieces = append(pieces, span{number(c) + " " + string(s), severityStyle(s)})
		}
	}
	return pieces
}

// day is a date, or "" when it is not known.
func day(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return sane(t).Format("2006-01-02")
}

// minute is a time as reports state it.
func minute(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return sane(t).Format("2006-01-02 15:04 MST")
}

// duration is a span of time in a unit in which it is a small number.
func duration(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	switch days := int(d.Hours() / 24); {
	case days >= 2*365:
		return count(days/365, "year", "years")
	case days >= 60:
		return count(days/30, "month", "months")
	case days >= 2:
		return count(days, "day", "days")
	case d >= 2*time.Hour:
		return count(int(d.Hours()), "hour", "hours")
	case d >= 2*time.Minute:
		return count(int(d.Minutes()), "minute", "minutes")
	}
	return count(int(d.Seconds()), "second", "seconds")
}

// since is a date with its distance from now.
func since(t, now time.Time) string {
	switch {
	case t.IsZero():
		return ""
	case now.IsZero():
		return day(t)
	case t.After(now):
		return day(t) + " (in " + duration(t.Sub(now)) + ")"
	}
	return day(t) + " (" + duration(now.Sub(t)) + " ago)"
}

// ending says until when a credential is good, and whether that is a worry.
func ending(c *remit.Credential, now time.Time) (word string, worry bool) {
	switch {
	case c.Status != remit.Active && c.Status != "":
		return string(c.Status), false
	case c.NeverExpires:
		return "never expires", true
	case !c.Expires.IsZero() && c.Expires.Before(now):
		return "expired " + day(c.Expires), false
	case !c.Expires.IsZero():
		return "expires " + since(c.Expires, now), false
	case c.GrantedLifetime > 0:
		return "lives " + duration(time.Duration(c.GrantedLifetime)*time.Second), c.GrantedLifetime > 30*24*3600
	case c.Lifetime > 0:
		return "lives " + duration(time.Duration(c.Lifetime)*time.Second), c.Lifetime > 30*24*3600
	}
	return "end not known", false
}

// shortList joins words and says how many there are beyond the limit.
func shortList(words []string, limit int) string {
	if len(words) <= limit+1 { // "and 1 more" is no shorter than the one
		return strings.Join(words, ", ")
	}
	return strings.Join(words[:limit], ", ") + fmt.Sprintf(" and %s more", number(len(words)-limit))
}

// permissionLines says what permissions allow, one line each.
func permissionLines(list []remit.Permission) []string {
	lines := make([]string, len(list))
	for i, p := range list {
		lines[i] = permissionLine(p)
	}
	return lines
}

func permissionLine(p remit.Permission) string {
	actions := shortList(p.Actions, 6)
	switch {
	case one(p.Actions, "*"):
		actions = "every action"
	case len(p.Actions) == 0:
		actions = "no action"
	}
	resources := shortList(p.Resources, 6)
	switch {
	case one(p.Resources, "*.*"):
		resources = "everything"
	case one(p.Resources, "*"):
		resources = "every resource"
	}
	line := actions
	if resources != "" {
		line += " on " + resources
	}
	if len(p.Names) > 0 {
		line += " named " + shortList(p.Names, 4)
	}
	if p.Condition != "" {
		line += " if " + p.Condition
	}
	if p.Deny {
		return "denied: " + line
	}
	return line
}

func one(list []string, word string) bool { return len(list) == 1 && list[0] == word }
