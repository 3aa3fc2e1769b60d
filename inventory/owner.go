package inventory

import (
	"bufio"
	"io"
	"slices"
	"strings"

	"remit"
)

// People knows who can still answer for an identity: the persons and teams of
// the organization, by the names that owner claims use. Its zero value knows
// nobody and says of no owner that it left.
type People struct {
	status map[string]remit.OwnerStatus
}

// ReadPeople reads a list of people, one a line: a name (mail address, user or
// team name) and, after a comma, "present" (the default) or "left". Empty lines
// and lines that begin with # are passed over. name is what errors call the
// input; they are [remit.Invalid] and give the line.
func ReadPeople(name string, r io.Reader) (People, error) {
	p := People{status: map[string]remit.OwnerStatus{}}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		person, word, _ := strings.Cut(line, ",")
		person = personKey(person)
		if person == "" {
			return People{}, remit.Errorf(remit.Invalid, "read people", "%s:%d: no name before the comma", name, n)
		}
		switch status := remit.OwnerStatus(strings.TrimSpace(word)); status {
		case "", remit.OwnerPresent:
			p.status[person] = remit.OwnerPresent
		case remit.OwnerLeft:
			p.status[person] = status
		default:
			return People{}, remit.Errorf(remit.Invalid, "read people",
				"%s:%d: %q is neither present nor left", name, n, status)
		}
	}
	if err := lines.Err(); err != nil {
		return People{}, remit.Errorf(remit.Invalid, "read people", "%s: %w", name, err)
	}
	return p, nil
}

// Status tells whether a person or team can still answer; "" when it is not in
// the list.
func (p People) Status(name string) remit.OwnerStatus { return p.status[personKey(name)] }

// personKey makes the ways in which one name is written alike.
func personKey(name string) string {
	name = strings.ToLower(strings.TrimSpace(name))
	name = strings.TrimPrefix(name, "mailto:")
	return strings.TrimPrefix(name, "@")
}

// settleOwners says of each claimed owner whether it can still answer. The order
// of the claims stays: that the strongest one names somebody who left is a
// finding, also where a weaker one names a team that could take over.
func (p *pass) settleOwners(identities []remit.Identity) {
	for i := range identities {
		owners := slices.Clone(identities[i].Owners)
		for n := range owners {
			if status := p.People.Status(owners[n].Name); status != "" {
				owners[n].Status = status
			}
		}
		identities[i].Owners = owners
	}
}
