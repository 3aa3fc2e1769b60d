package policy

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"remit"
)

// Case is a test that a policy carries: records in a short form, and whether
// the policy matches the first of them.
type Case struct {
	Name       string
	Line       int
	Want       bool
	Severity   remit.Severity // "" is not asked
	Message    string         // "" is not asked
	Records    remit.Records  // the subject is the first of its kind
	Subject    remit.ID
	Gaps       []string // the system's sections that could not be read
	parameters []setting
}

var stringsType = reflect.TypeOf([]string(nil))

// caseNow is the time at which all cases are run; the times in them may be
// written relative to it.
var caseNow = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

const caseSystem = "test"

func systemOfCase(name string) remit.ID { return remit.SystemID("test", name) }

func (d *decoder) testCase(n *yaml.Node, kind remit.RecordKind) Case {
	c := Case{Line: n.Line}
	fields := map[string]func(*yaml.Node){
		"name":     func(n *yaml.Node) { c.Name = d.text(n).value },
		"match":    func(n *yaml.Node) { c.Want = d.flag(n) },
		"severity": func(n *yaml.Node) { c.Severity = d.severity(n) },
		"message":  func(n *yaml.Node) { c.Message = d.text(n).value },
		"gaps":     func(n *yaml.Node) { c.Gaps = values(d.texts(n)) },
		"parameters": func(n *yaml.Node) {
			d.each(n, func(k, v *yaml.Node) {
				c.parameters = append(c.parameters, setting{name: d.key(k), node: v})
			})
		},
		"with": func(n *yaml.Node) {
			many := func(read func(*yaml.Node)) func(*yaml.Node) {
				return func(n *yaml.Node) {
					for _, one := range d.sequence(n) {
						read(one)
					}
				}
			}
			d.fields(n, map[string]func(*yaml.Node){
				"identities":  many(func(n *yaml.Node) { d.identity(n, &c.Records) }),
				"credentials": many(func(n *yaml.Node) { d.credential(n, &c.Records) }),
				"roles":       many(func(n *yaml.Node) { d.role(n, &c.Records) }),
				"grants":      many(func(n *yaml.Node) { d.grant(n, &c.Records) }),
				"relations":   many(func(n *yaml.Node) { d.relation(n, &c.Records) }),
				"resources":   many(func(n *yaml.Node) { d.resource(n, &c.Records) }),
			})
		},
	}
	var subject *yaml.Node
	name, _ := variable(kind)
	if name != "" {
		fields[name] = func(n *yaml.Node) { subject = n }
	}
	given := d.fields(n, fields)
	if !given["match"] {
		d.fault(n, "the test has no match: true or false")
	}
	if subject == nil {
		d.fault(n, "the test has no %s", kind)
		return c
	}
	switch kind {
	case remit.KindIdentity:
		c.Subject = d.identity(subject, &c.Records)
	case remit.KindCredential:
		c.Subject = d.credential(subject, &c.Records)
	case remit.KindGrant:
		c.Subject = d.grant(subject, &c.Records)
	}
	imply(&c.Records)
	return c
}

// recordSpec reads the fields that all records have.
func (d *decoder) recordSpec(r *remit.Record, more map[string]func(*yaml.Node)) map[string]func(*yaml.Node) {
	r.System = systemOfCase(caseSystem)
	more["system"] = func(n *yaml.Node) { r.System = systemOfCase(d.text(n).value) }
	more["kind"] = func(n *yaml.Node) { r.Kind = d.text(n).value }
	more["namespace"] = func(n *yaml.Node) { r.Namespace = d.text(n).value }
	more["name"] = func(n *yaml.Node) { r.Name = d.text(n).value }
	more["created"] = d.timeInto(&r.Created)
	more["since"] = d.timeInto(&r.Since)
	more["built_in"] = d.flagInto(&r.BuiltIn)
	more["environment"] = d.textInto(&r.Environment)
	more["labels"] = d.wordsInto(&r.Labels)
	more["attributes"] = d.wordsInto(&r.Attributes)
	return more
}

func (d *decoder) textInto(to *string) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = d.text(n).value }
}

func (d *decoder) flagInto(to *bool) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = d.flag(n) }
}

func (d *decoder) textsInto(to *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = values(d.texts(n)) }
}

func (d *decoder) wordsInto(to *map[string]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*to = map[string]string{}
		d.each(n, func(k, v *yaml.Node) { (*to)[k.Value] = d.text(v).value })
	}
}

func (d *decoder) secondsInto(to *int64) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = int64(d.span(n) / time.Second) }
}

// timeInto reads a time: 2026-01-02, a full RFC 3339 time, or -400d and +3d
// from now.
func (d *decoder) timeInto(to *time.Time) func(*yaml.Node) {
	return func(n *yaml.Node) {
		s := d.text(n).value
		if strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
			*to = caseNow.Add(d.span(n))
			return
		}
		for _, layout := range []string{time.DateOnly, time.RFC3339} {
			if t, err := time.Parse(layout, s); err == nil {
				*to = t
				return
			}
		}
		d.fault(n, "a time is written -400d, +3d, 2026-01-02 or 2026-01-02T15:04:05Z")
	}
}

// ref reads "ServiceAccount payments/api" or "ClusterRole admin".
func (d *decoder) ref(n *yaml.Node) remit.Ref {
	kind, rest, ok := strings.Cut(d.text(n).value, " ")
	if !ok || rest == "" {
		d.fault(n, "a record is named by its kind, namespace and name: ServiceAccount payments/api")
		return remit.Ref{}
	}
	if namespace, name, ok := strings.Cut(rest, "/"); ok {
		return remit.Ref{Kind: kind, Namespace: namespace, Name: name}
	}
	return remit.Ref{Kind: kind, Name: rest}
}

func (d *decoder) refInto(to *remit.Ref) func(*yaml.Node) {
	return func(n *yaml.Node) { *to = d.ref(n) }
}

func (d *decoder) named(n *yaml.Node, r *remit.Record) {
	if r.Kind == "" || r.Name == "" {
		d.fault(n, "the record has no kind or no name")
	}
}

func (d *decoder) identity(n *yaml.Node, into *remit.Records) remit.ID {
	r := remit.Identity{Status: remit.Active}
	d.fields(n, d.recordSpec(&r.Record, map[string]func(*yaml.Node){
		"type":         func(n *yaml.Node) { r.Type = remit.IdentityType(d.text(n).value) },
		"status":       func(n *yaml.Node) { r.Status = remit.Status(d.text(n).value) },
		"principal":    d.textInto(&r.Principal),
		"display_name": d.textInto(&r.DisplayName),
		"purpose":      d.textInto(&r.Purpose),
		"expires":      d.timeInto(&r.Expires),
		"last_active":  d.timeInto(&r.LastActive),
		"owners": func(n *yaml.Node) {
			for _, one := range d.sequence(n) {
				var o remit.Owner
				d.fields(one, map[string]func(*yaml.Node){
					"name":   d.textInto(&o.Name),
					"source": d.textInto(&o.Source),
					"status": func(n *yaml.Node) { o.Status = remit.OwnerStatus(d.text(n).value) },
				})
				r.Owners = append(r.Owners, o)
			}
		},
	}))
	d.named(n, &r.Record)
	if r.Type == "" {
		r.Type = typeOfKind(r.Kind)
	}
	r.ID = remit.IdentityID(r.System, r.Ref)
	into.Identities = append(into.Identities, r)
	return r.ID
}

// typeOfKind is what a connector would make of a kind.
func typeOfKind(kind string) remit.IdentityType {
	switch kind {
	case "ServiceAccount":
		return remit.ServiceAccount
	case "Group":
		return remit.Group
	case "User":
		return remit.Human
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "APIService", "OIDCIssuer":
		return remit.Application
	}
	return remit.Workload
}

func (d *decoder) credential(n *yaml.Node, into *remit.Records) remit.ID {
	r := remit.Credential{Status: remit.Active}
	var holder, location remit.Ref
	d.fields(n, d.recordSpec(&r.Record, map[string]func(*yaml.Node){
		"type":             func(n *yaml.Node) { r.Type = remit.CredentialType(d.text(n).value) },
		"status":           func(n *yaml.Node) { r.Status = remit.Status(d.text(n).value) },
		"key":              d.textInto(&r.Key),
		"identity":         d.refInto(&holder),
		"location":         d.refInto(&location),
		"provider":         d.textInto(&r.Provider),
		"native":           d.textInto(&r.Native),
		"fingerprint":      d.textInto(&r.Fingerprint),
		"issued":           d.timeInto(&r.Issued),
		"expires":          d.timeInto(&r.Expires),
		"last_used":        d.timeInto(&r.LastUsed),
		"rotated":          d.timeInto(&r.Rotated),
		"never_expires":    d.flagInto(&r.NeverExpires),
		"lifetime":         d.secondsInto(&r.Lifetime),
		"granted_lifetime": d.secondsInto(&r.GrantedLifetime),
		"audiences":        d.textsInto(&r.Audiences),
		"exposure":         d.textsInto(&r.Exposure),
		"algorithm":        d.textInto(&r.Algorithm),
		"key_bits": func(n *yaml.Node) {
			bits, err := strconv.Atoi(d.text(n).value)
			if err != nil {
				d.fault(n, "a whole number belongs here")
			}
			r.KeyBits = bits
		},
		"subject": d.textInto(&r.Subject),
		"issuer":  d.textInto(&r.Issuer),
	}))
	d.named(n, &r.Record)
	if holder.Name != "" {
		r.Holder, r.Identity = holder, remit.IdentityID(r.System, holder)
	}
	// What lies in a Secret or ConfigMap lies in the object that names it.
	if location.Name == "" && (r.Kind == "Secret" || r.Kind == "ConfigMap") {
		location = r.Ref
	}
	if location.Name != "" {
		r.Location = remit.ResourceID(r.System, location)
	}
	r.ID = remit.CredentialID(r.System, r.Ref, r.Key)
	into.Credentials = append(into.Credentials, r)
	return r.ID
}

// permissions reads a list of "get, list on secrets, pods/exec" with an
// optional "named a, b" behind it.
func (d *decoder) permissions(n *yaml.Node) []remit.Permission {
	var out []remit.Permission
	for _, t := range d.texts(n) {
		actions, rest, ok := strings.Cut(t.value, " on ")
		if !ok {
			d.fault(t.node, "a permission is written: get, list on secrets, pods/exec")
			continue
		}
		resources, names, _ := strings.Cut(rest, " named ")
		out = append(out, remit.Permission{Actions: commas(actions), Resources: commas(resources), Names: commas(names)})
	}
	return out
}

func commas(s string) []string {
	var out []string
	for _, one := range strings.Split(s, ",") {
		if one = strings.TrimSpace(one); one != "" {
			out = append(out, one)
		}
	}
	return out
}

func (d *decoder) role(n *yaml.Node, into *remit.Records) remit.ID {
	var r remit.Role
	d.fields(n, d.recordSpec(&r.Record, map[string]func(*yaml.Node){
		"permissions": func(n *yaml.Node) { r.Permissions = d.permissions(n) },
	}))
	d.named(n, &r.Record)
	r.ID = remit.RoleID(r.System, r.Ref)
	into.Roles = append(into.Roles, r)
	return r.ID
}

func (d *decoder) grant(n *yaml.Node, into *remit.Records) remit.ID {
	r := remit.Grant{Status: remit.Active}
	d.fields(n, d.recordSpec(&r.Record, map[string]func(*yaml.Node){
		"status":      func(n *yaml.Node) { r.Status = remit.Status(d.text(n).value) },
		"identity":    d.refInto(&r.Subject),
		"role":        d.refInto(&r.RoleRef),
		"permissions": func(n *yaml.Node) { r.Permissions = d.permissions(n) },
		"scope":       d.textInto(&r.Scope),
		"condition":   d.textInto(&r.Condition),
		"origin":      d.textInto(&r.Origin),
		"expires":     d.timeInto(&r.Expires),
	}))
	d.named(n, &r.Record)
	if r.Subject.Name == "" {
		d.fault(n, "the grant has no identity")
	}
	if r.Scope == "" {
		r.Scope = r.Namespace // a RoleBinding holds in its namespace
	}
	r.Identity = remit.IdentityID(r.System, r.Subject)
	if r.RoleRef.Name != "" {
		r.Role = remit.RoleID(r.System, r.RoleRef)
	}
	r.ID = remit.GrantID(r.System, r.Ref, r.Identity)
	into.Grants = append(into.Grants, r)
	return r.ID
}

func (d *decoder) relation(n *yaml.Node, into *remit.Records) remit.ID {
	var r remit.Relation
	var via remit.Ref
	d.fields(n, map[string]func(*yaml.Node){
		"type":  func(n *yaml.Node) { r.Type = remit.RelationType(d.text(n).value) },
		"from":  d.refInto(&r.FromRef),
		"to":    d.refInto(&r.ToRef),
		"right": func(n *yaml.Node) { r.Right = remit.Right(d.text(n).value) },
		"scope": d.textInto(&r.Scope),
		"via":   d.refInto(&via),
	})
	r.System = systemOfCase(caseSystem)
	r.Kind, r.Name = "Relation", r.FromRef.Name+" "+string(r.Type)+" "+r.ToRef.Name
	r.From, r.To = remit.IdentityID(r.System, r.FromRef), remit.IdentityID(r.System, r.ToRef)
	if r.Type == remit.Holds {
		r.To = remit.ResourceID(r.System, r.ToRef)
	}
	if via.Name != "" {
		r.Via = remit.GrantID(r.System, via, r.From)
	}
	if r.FromRef.Name == "" || r.ToRef.Name == "" || r.Type == "" {
		d.fault(n, "a relation has type, from and to")
	}
	r.ID = remit.RelationID(r.From, r.To, r.Type, r.Right, r.Scope)
	into.Relations = append(into.Relations, r)
	return r.ID
}

func (d *decoder) resource(n *yaml.Node, into *remit.Records) remit.ID {
	var r remit.Resource
	d.fields(n, d.recordSpec(&r.Record, map[string]func(*yaml.Node){
		"type":        d.textInto(&r.Type),
		"crown_jewel": d.flagInto(&r.CrownJewel),
	}))
	d.named(n, &r.Record)
	if r.Type == "" {
		r.Type = strings.ToLower(r.Kind)
	}
	r.ID = remit.ResourceID(r.System, r.Ref)
	into.Resources = append(into.Resources, r)
	return r.ID
}

// imply adds the identities that other records name and nobody wrote down, so
// that a test says only what it is about.
func imply(all *remit.Records) {
	known := map[remit.ID]bool{}
	for i := range all.Identities {
		known[all.Identities[i].ID] = true
	}
	add := func(system remit.ID, ref remit.Ref) {
		id := remit.IdentityID(system, ref)
		if ref.Name == "" || known[id] {
			return
		}
		known[id] = true
		r := remit.Identity{Type: typeOfKind(ref.Kind), Status: remit.Active}
		r.ID, r.System, r.Ref = id, system, ref
		r.BuiltIn = ref.Namespace == "" && strings.HasPrefix(ref.Name, "system:")
		all.Identities = append(all.Identities, r)
	}
	for _, c := range all.Credentials {
		add(c.System, c.Holder)
	}
	for _, g := range all.Grants {
		add(g.System, g.Subject)
	}
	for _, r := range all.Relations {
		add(r.System, r.FromRef)
		if r.Type != remit.Holds {
			add(r.System, r.ToRef)
		}
	}
}
