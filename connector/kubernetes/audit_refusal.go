package kubernetes

import (
	"slices"
	"strings"

	"github.com/valyala/fastjson"

	"remit"
	"remit/connector"
)

// What the reason of an activity says when admission policies had something
// against it.
const (
	refusedBy      = "refused by "
	wouldRefuse    = "would be refused by "
	maxRefusal     = 1000 // bytes of a reason
	maxRefusals    = 8
	maxRefusalNote = 16 << 10 // of the annotation
)

// readRefusal reads what ValidatingAdmissionPolicies that audit, beside refusing
// or in place of it, have said of a request. The API server writes that of the
// first of them only.
// Source: k8s.io/apiserver pkg/admission/plugin/policy/validating, ValidationFailureValue
func readRefusal(note *fastjson.Value, in *connector.Interner, a *remit.Activity) {
	text := note.GetStringBytes()
	if len(text) == 0 || len(text) > maxRefusalNote {
		return
	}
	v, err := fastjson.ParseBytes(text)
	if err != nil {
		return // it is a note: without it the event is whole
	}
	var all []string
	for _, one := range v.GetArray() {
		policy := string(one.GetStringBytes("policy"))
		if policy == "" || len(all) == maxRefusals {
			continue
		}
		denies := slices.ContainsFunc(one.GetArray("validationActions"), func(action *fastjson.Value) bool { return string(action.GetStringBytes()) == "Deny" })
		by := wouldRefuse
		if denies && a.Code >= 400 {
			by = refusedBy
		}
		all = append(all, by+policy+": "+string(one.GetStringBytes("message")))
	}
	if len(all) > 0 {
		a.Reason = in.String([]byte(truncate(strings.Join(all, "; "), maxRefusal)))
	}
}

// GuardVerdict reads which rule of a guard was broken out of the reason of an
// activity, and whether that was refused or let through. ok is false when none
// was.
func GuardVerdict(reason string) (v GuardViolation, refused, ok bool) {
	rest, refused := strings.CutPrefix(reason, refusedBy)
	if !refused {
		if rest, ok = strings.CutPrefix(reason, wouldRefuse); !ok {
			return v, false, false
		}
	}
	policy, message, _ := strings.Cut(rest, ": ")
	rule := guardRuleOf(policy)
	return GuardViolation{rule, message}, refused, rule != ""
}
