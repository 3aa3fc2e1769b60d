package storetest

import (
	"cmp"
	"math"
	"strings"
	"time"

	"remit"
)

// identityOrders are the total orders of a list of identities.
var identityOrders = map[string]func(a, b remit.Identity) int{
	"":     byName,
	"name": byName,
	"kind": func(a, b remit.Identity) int { return cmp.Or(strings.Compare(a.Kind, b.Kind), byName(a, b)) },
	"created": func(a, b remit.Identity) int {
		return cmp.Or(cmp.Compare(orZero(a.Created), orZero(b.Created)), cmp.Compare(a.ID, b.ID))
	},
	"expires": func(a, b remit.Identity) int {
		return cmp.Or(cmp.Compare(orNever(a.Expires), orNever(b.Expires)), cmp.Compare(a.ID, b.ID))
	},
	"id": func(a, b remit.Identity) int { return cmp.Compare(a.ID, b.ID) },
}

func byName(a, b remit.Identity) int { return byRecord(a.Record, b.Record) }

func byRecord(a, b remit.Record) int { return cmp.Or(byRef(a.Ref, b.Ref), cmp.Compare(a.ID, b.ID)) }

func byRef(a, b remit.Ref) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

func orZero(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func orNever(t time.Time) int64 {
	if t.IsZero() {
		return math.MaxInt64
	}
	return t.UnixMicro()
}

// findingOrders are the total orders of a list of findings.
var findingOrders = map[string]func(a, b remit.Finding) int{
	"":         worstFirst,
	"severity": worstFirst,
	"name":     bySubject,
	"kind": func(a, b remit.Finding) int {
		return cmp.Or(strings.Compare(a.Subject.Kind, b.Subject.Kind), bySubject(a, b))
	},
	"created": func(a, b remit.Finding) int {
		return cmp.Or(cmp.Compare(orZero(a.First), orZero(b.First)), cmp.Compare(a.ID, b.ID))
	},
	"id": func(a, b remit.Finding) int { return cmp.Compare(a.ID, b.ID) },
}

func worstFirst(a, b remit.Finding) int {
	return cmp.Or(b.Severity.Rank()-a.Severity.Rank(), bySubject(a, b))
}

func bySubject(a, b remit.Finding) int {
	return cmp.Or(byRef(a.Subject.Ref, b.Subject.Ref), cmp.Compare(a.ID, b.ID))
}
