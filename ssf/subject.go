package ssf

import (
	"encoding/json"
	"slices"
	"strings"

	"remit"
)

// Subject is a subject identifier (RFC 9493), or a complex subject of SSF 1.0,
// section 3.3, whose members are identifiers.
type Subject struct {
	Format  string
	Fields  map[string]string // the members that are texts
	Members []Member          // of a complex subject, sorted by name; of aliases, in order
}

// Member is one part of a subject of several.
type Member struct {
	Name string // "user", "device", "tenant"; "" of aliases
	Subject
}

// The bounds of a subject.
const (
	maxMembers = 16
	maxField   = 512
)

// parseSubject reads a subject identifier. Also taken are the older
// "subject_type" in place of "format", and complex subjects without a format.
func parseSubject(raw json.RawMessage) (Subject, error) { return readSubject(raw, 0) }

// readSubject reads an identifier at a depth: members of a complex subject may be
// aliases, and nothing else is nested.
func readSubject(raw json.RawMessage, depth int) (Subject, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		return Subject{}, refuse(InvalidRequest, "the subject is no JSON object")
	}
	s := Subject{Fields: map[string]string{}}
	names := make([]string, 0, len(object))
	for name := range object {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		var text string
		if json.Unmarshal(object[name], &text) == nil {
			if len(text) > maxField || len(s.Fields) == maxMembers {
				return Subject{}, refuse(InvalidRequest, "the subject is larger than %d members of %d bytes", maxMembers, maxField)
			}
			s.Fields[name] = text
		}
	}
	s.Format = strings.ReplaceAll(s.Fields["format"], "-", "_")
	if s.Format == "" {
		s.Format = strings.ReplaceAll(s.Fields["subject_type"], "-", "_")
	}
	if s.Format == "aliases" && depth < 2 {
		var all []json.RawMessage
		if json.Unmarshal(object["identifiers"], &all) != nil || len(all) > maxMembers {
			return Subject{}, refuse(InvalidRequest, "the aliases of the subject are no list of at most %d identifiers", maxMembers)
		}
		for _, one := range all {
			member, err := readSubject(one, 2)
			if err != nil {
				return Subject{}, err
			}
			s.Members = append(s.Members, Member{Subject: member})
		}
	}
	if (s.Format == "complex" || s.Format == "") && depth == 0 {
		for _, name := range names {
			if trimmed := strings.TrimSpace(string(object[name])); !strings.HasPrefix(trimmed, "{") {
				continue
			}
			if len(s.Members) == maxMembers {
				return Subject{}, refuse(InvalidRequest, "the subject has more than %d members", maxMembers)
			}
			member, err := readSubject(object[name], 1)
			if err != nil {
				return Subject{}, err
			}
			s.Format = "complex"
			s.Members = append(s.Members, Member{Name: name, Subject: member})
		}
	}
	if s.Format == "" {
		return Subject{}, refuse(InvalidRequest, "the subject has no format")
	}
	return s, nil
}

// name is one of the names under which a system may know a subject.
type name struct {
	text string

	// bare says that the name means something only among the identities of its
	// issuer: it counts in the systems that the configuration lists.
	bare bool
}

// names are under which names the subject may be known. A complex subject is its
// user, or where it has none its application: the other members narrow what the
// event is about, and none of them is an identity of its own.
func (s *Subject) names(issuer string) (all []name) {
	f := s.Fields
	add := func(text string, bare bool) {
		if text != "" {
			all = append(all, name{text: text, bare: bare && !isMail(text)})
		}
	}
	switch s.Format {
	case "email":
		add(f["email"], false)
	case "account":
		add(strings.TrimPrefix(f["uri"], "acct:"), false)
	case "uri", "did":
		add(f["uri"], false)
		add(f["url"], false)
	case "opaque":
		add(f["id"], true)
	case "iss_sub":
		// So the Kubernetes API server names the users of an issuer, unless it is
		// told otherwise.
		add(f["iss"]+"#"+f["sub"], false)
		if f["iss"] == issuer {
			add(f["sub"], true)
		}
		// And so the tokens of service accounts name them, whoever their issuer is.
		if strings.HasPrefix(f["sub"], "system:serviceaccount:") {
			add(f["sub"], true)
		}
	case "aliases":
		for _, m := range s.Members {
			all = append(all, m.names(issuer)...)
		}
	case "complex":
		for _, who := range []string{"user", "application"} {
			for _, m := range s.Members {
				if m.Name == who {
					all = append(all, m.names(issuer)...)
				}
			}
			if len(all) > 0 {
				break
			}
		}
	}
	return all
}

func isMail(s string) bool {
	at := strings.IndexByte(s, '@')
	return at > 0 && at < len(s)-1 && !strings.ContainsAny(s, "# /\t\n")
}

// String tells the subject in words, for messages. It does not escape.
func (s *Subject) String() string {
	var parts []string
	for _, m := range s.Members {
		if m.Name != "" {
			parts = append(parts, m.Name+" "+m.Subject.String())
		} else {
			parts = append(parts, m.Subject.String())
		}
	}
	if len(parts) > 0 {
		return clip(strings.Join(parts, ", "), maxField)
	}
	switch s.Format {
	case "iss_sub":
		return s.Fields["sub"] + " of " + s.Fields["iss"]
	case "email":
		return s.Fields["email"]
	case "opaque":
		return s.Fields["id"]
	}
	for _, key := range []string{"uri", "url", "phone_number", "jti"} {
		if v := s.Fields[key]; v != "" {
			return v
		}
	}
	return "a subject of the format " + clip(s.Format, 64)
}

// subjectOf is how Remit names an identity to others: by what the platform's own
// tokens and logs write for it, within the system that it belongs to.
func subjectOf(who remit.Ref, principal, system string) map[string]any {
	var id map[string]any
	switch {
	case isMail(principal):
		id = map[string]any{"format": "email", "email": principal}
	case strings.Contains(principal, "://"):
		id = map[string]any{"format": "uri", "uri": principal}
	case principal != "":
		id = map[string]any{"format": "opaque", "id": principal}
	default:
		id = map[string]any{"format": "opaque", "id": who.String()}
	}
	member := "application"
	if strings.HasSuffix(who.Kind, "User") {
		member = "user"
	}
	return map[string]any{"format": "complex", member: id, "tenant": map[string]any{"format": "opaque", "id": system}}
}
