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
	names  map[string][]string // all names of who has this one
}

// ReadPeople reads a list of people, one a line: a name (mail address, user or
// team name) and, after a comma, "present" (the default) or "left"; after further
// commas may follow the other names of the same person or team. Empty lines and
// lines that begin with # are passed over. name is what errors call the
// input; they are [remit.Invalid] and give the line.
func ReadPeople(name string, r io.Reader) (People, error) {
	p := People{status: map[string]remit.OwnerStatus{}, names: map[string][]string{}}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, ",")
		if personKey(fields[0]) == "" {
			return People{}, remit.Errorf(remit.Invalid, "read people", "%s:%d: no name before the comma", name, n)
		}
		status := remit.OwnerPresent
		if len(fields) > 1 {
			switch word := remit.OwnerStatus(strings.TrimSpace(fields[1])); word {
			case "", remit.OwnerPresent:
			case remit.OwnerLeft:
				status = word
			default:
				return People{}, remit.Errorf(remit.Invalid, "read people",
					"%s:%d: %q is neither present nor left", name, n, word)
			}
			fields = slices.Delete(fields, 1, 2)
		}
		p.add(fields, status)
	}
	if err := lines.Err(); err != nil {
		return People{}, remit.Errorf(remit.Invalid, "read people", "%s: %w", name, err)
	}
	return p, nil
}

// add notes a person under each of the names.
func (p *People) add(names []string, status remit.OwnerStatus) {
	var all []string
	for _, n := range names {
		if n = strings.TrimSpace(n); n != "" {
			all = append(all, n)
		}
	}
	for _, n := range all {
		key := personKey(n)
		p.status[key] = status
		p.names[key] = append(p.names[key], all...)
	}
}

// Names are all names of the person or team that has this one, none when it is
// not in the list.
func (p People) Names(name string) []string { return p.names[personKey(name)] }

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
