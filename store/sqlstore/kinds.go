package sqlstore

import (
	"time"

	"remit"
)

// The indexes that several kinds share: a type is looked up within a system; of
// statuses only the exceptions are indexed.
const (
	byType      = "system, type"
	byStatus    = "system, status"
	unusual     = "status <> 'active'"
	byLastUse   = "system, last_used"
	byProvider  = "system, provider"
	notNothing  = " <> ''"
	ownedColumn = "owned"
)

var identities = &kind[remit.Identity]{
	name:   remit.KindIdentity,
	plural: "identities",
	record: func(r *remit.Identity) *remit.Record { return &r.Record },
	columns: []column[remit.Identity]{
		text("type", byType, "", func(r *remit.Identity) string { return string(r.Type) }),
		text("status", byStatus, unusual, func(r *remit.Identity) string { return string(r.Status) }),
		expiry(func(r *remit.Identity) time.Time { return r.Expires }),
		flag(ownedColumn, func(r *remit.Identity) bool { return len(r.Owners) > 0 }),
	},
	times: func(r *remit.Identity) []*time.Time { return []*time.Time{&r.Expires, &r.LastActive} },
	facets: func(r *remit.Identity, add func(facet, value string)) {
		add("type", string(r.Type))
		add("status", string(r.Status))
		add("owned", boolWord(len(r.Owners) > 0))
	},
	owners: func(r *remit.Identity) []remit.Owner { return r.Owners },
}

var credentials = &kind[remit.Credential]{
	name:   remit.KindCredential,
	plural: "credentials",
	record: func(r *remit.Credential) *remit.Record { return &r.Record },
	columns: []column[remit.Credential]{
		text("type", byType, "", func(r *remit.Credential) string { return string(r.Type) }),
		text("status", byStatus, unusual, func(r *remit.Credential) string { return string(r.Status) }),
		expiry(func(r *remit.Credential) time.Time { return r.Expires }),
		reference("identity", func(r *remit.Credential) remit.ID { return r.Identity }),
		reference("location", func(r *remit.Credential) remit.ID { return r.Location }),
		text("native", "native", "native"+notNothing, func(r *remit.Credential) string { return r.Native }),
		text("fingerprint", "fingerprint", "fingerprint"+notNothing, func(r *remit.Credential) string { return r.Fingerprint }),
		text("provider", byProvider, "", func(r *remit.Credential) string { return r.Provider }),
		flag("never_expires", func(r *remit.Credential) bool { return r.NeverExpires }),
		number("last_used", byLastUse, func(r *remit.Credential) int64 { return micros(r.LastUsed) }),
	},
	times: func(r *remit.Credential) []*time.Time {
		return []*time.Time{&r.Issued, &r.Expires, &r.LastUsed, &r.Rotated}
	},
	facets: func(r *remit.Credential, add func(facet, value string)) {
		add("type", string(r.Type))
		add("status", string(r.Status))
		add("provider", r.Provider)
		add("never_expires", boolWord(r.NeverExpires))
	},
	concerns: func(r *remit.Credential, add func(remit.ID)) { add(r.Identity) },
}

var roles = &kind[remit.Role]{
	name:   remit.KindRole,
	plural: "roles",
	record: func(r *remit.Role) *remit.Record { return &r.Record },
}

var grants = &kind[remit.Grant]{
	name:   remit.KindGrant,
	plural: "grants",
	record: func(r *remit.Grant) *remit.Record { return &r.Record },
	columns: []column[remit.Grant]{
		text("status", byStatus, unusual, func(r *remit.Grant) string { return string(r.Status) }),
		expiry(func(r *remit.Grant) time.Time { return r.Expires }),
		reference("identity", func(r *remit.Grant) remit.ID { return r.Identity }),
		reference("role", func(r *remit.Grant) remit.ID { return r.Role }),
	},
	times:    func(r *remit.Grant) []*time.Time { return []*time.Time{&r.Expires} },
	facets:   func(r *remit.Grant, add func(facet, value string)) { add("status", string(r.Status)) },
	concerns: func(r *remit.Grant, add func(remit.ID)) { add(r.Identity) },
}

var relations = &kind[remit.Relation]{
	name:   remit.KindRelation,
	plural: "relations",
	record: func(r *remit.Relation) *remit.Record { return &r.Record },
	columns: []column[remit.Relation]{
		text("type", byType, "", func(r *remit.Relation) string { return string(r.Type) }),
		reference("from_id", func(r *remit.Relation) remit.ID { return r.From }),
		reference("to_id", func(r *remit.Relation) remit.ID { return r.To }),
		reference("via", func(r *remit.Relation) remit.ID { return r.Via }),
	},
	facets: func(r *remit.Relation, add func(facet, value string)) { add("type", string(r.Type)) },
	concerns: func(r *remit.Relation, add func(remit.ID)) {
		add(r.From)
		add(r.To)
	},
}

var resources = &kind[remit.Resource]{
	name:   remit.KindResource,
	plural: "resources",
	record: func(r *remit.Resource) *remit.Record { return &r.Record },
	columns: []column[remit.Resource]{
		text("type", byType, "", func(r *remit.Resource) string { return string(r.Type) }),
	},
	facets: func(r *remit.Resource, add func(facet, value string)) { add("type", string(r.Type)) },
}
