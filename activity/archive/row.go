package archive

import (
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"remit"
)

// row is the schema of the archive: one event, flat, under names that stay.
// What the event does not tell is an empty string, zero or false, except
// minted_expires and raw, which are null.
//
// Only columns may be added, at the end; readers find columns by name. What may
// be null is a pointer: of other optional values parquet-go v0.32.0 writes nulls
// as zeros behind k values that begin at the k-th of 64 rows.
type row struct {
	EventID      string `parquet:"event_id"`
	SystemID     string `parquet:"system_id,dict"`
	SystemName   string `parquet:"system_name,dict"`
	SystemNative string `parquet:"system_native,dict"`
	Time         int64  `parquet:"time,timestamp(microsecond),delta"`
	Learned      int64  `parquet:"learned,timestamp(microsecond),delta"`

	Identity       string `parquet:"identity,dict"`
	IdentityType   string `parquet:"identity_type,dict"`
	ActorKind      string `parquet:"actor_kind,dict"`
	ActorNamespace string `parquet:"actor_namespace,dict"`
	ActorName      string `parquet:"actor_name,dict"`
	Principal      string `parquet:"principal,dict"`

	Credential     string `parquet:"credential,dict"`
	CredentialType string `parquet:"credential_type,dict"`
	BoundKind      string `parquet:"bound_kind,dict"`
	BoundNamespace string `parquet:"bound_namespace,dict"`
	BoundName      string `parquet:"bound_name,dict"`
	Node           string `parquet:"node,dict"`

	MintedCredential     string   `parquet:"minted_credential,dict"`
	MintedType           string   `parquet:"minted_type,dict"`
	MintedForKind        string   `parquet:"minted_for_kind,dict"`
	MintedForNamespace   string   `parquet:"minted_for_namespace,dict"`
	MintedForName        string   `parquet:"minted_for_name,dict"`
	MintedBoundKind      string   `parquet:"minted_bound_kind,dict"`
	MintedBoundNamespace string   `parquet:"minted_bound_namespace,dict"`
	MintedBoundName      string   `parquet:"minted_bound_name,dict"`
	MintedExpires        *int64   `parquet:"minted_expires,optional,timestamp(microsecond)"`
	MintedLifetime       int64    `parquet:"minted_lifetime_us,dict"`
	MintedAudiences      []string `parquet:"minted_audiences,list" parquet-element:",dict"`

	Chain []actor `parquet:"chain,list"`

	Action            string `parquet:"action,dict"`
	Write             bool   `parquet:"write"`
	ResourceKind      string `parquet:"resource_kind,dict"`
	ResourceNamespace string `parquet:"resource_namespace,dict"`
	ResourceName      string `parquet:"resource_name,dict"`
	BindingKind       string `parquet:"binding_kind,dict"`
	BindingNamespace  string `parquet:"binding_namespace,dict"`
	BindingName       string `parquet:"binding_name,dict"`

	Address   string `parquet:"address,dict"`
	UserAgent string `parquet:"user_agent,dict"`
	Outcome   string `parquet:"outcome,dict"`
	Code      int32  `parquet:"code,dict"`
	Reason    string `parquet:"reason,dict"`

	Parent     string `parquet:"parent,dict"`
	Root       string `parquet:"root,dict"`
	Depth      int32  `parquet:"depth,dict"`
	SelfMinted bool   `parquet:"self_minted"`
	Outside    bool   `parquet:"outside"`
	Dormant    int64  `parquet:"dormant_us"`
	Known      bool   `parquet:"known"`

	Raw *string `parquet:"raw,optional"`
}

// actor is one element of the column chain.
type actor struct {
	Kind      string `parquet:"kind,dict"`
	Namespace string `parquet:"namespace,dict"`
	Name      string `parquet:"name,dict"`
}

// The longest that is kept of one event. What is longer is cut, never refused:
// an event that could not be archived because it is odd would be a way to hide.
const (
	maxString = 8 << 10 // bytes of one field
	maxList   = 64      // elements of chain and of minted_audiences
	maxRaw    = 1 << 20 // bytes of a raw event; a longer one is left out
)

// The times that can be kept: the years 1 to 9999.
var (
	firstTime = time.Time{}.UnixMicro()
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro()
)

// micros is a time as it is kept: microseconds since 1970, within the years 1
// to 9999.
func micros(t time.Time) int64 {
	switch year := t.Year(); { // UnixMicro is not defined far outside
	case year < 1:
		return firstTime
	case year > 9999:
		return lastTime
	}
	return min(max(t.UnixMicro(), firstTime), lastTime)
}

func fromMicros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// clean is s as it may stand in a Parquet string: UTF-8, for other readers
// refuse a whole file over one bad byte, and of bounded length.
func clean(s string) string {
	if s == "" {
		return s
	}
	if len(s) > maxString {
		s = cut(s)
	}
	if !utf8.ValidString(s) {
		s = cut(strings.ToValidUTF8(s, "\uFFFD"))
	}
	return s
}

// cut shortens s to maxString, between characters.
func cut(s string) string {
	if len(s) <= maxString {
		return s
	}
	n := maxString
	for n > maxString-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func int32Of(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

// set fills the row from an event and keeps the memory of the row's lists.
func (r *row) set(e *remit.Activity, systemName string) {
	chain, audiences := r.Chain[:0], r.MintedAudiences[:0]
	for _, ref := range e.Chain[:min(len(e.Chain), maxList)] {
		chain = append(chain, actor{clean(ref.Kind), clean(ref.Namespace), clean(ref.Name)})
	}
	for _, audience := range e.Minted.Audiences[:min(len(e.Minted.Audiences), maxList)] {
		audiences = append(audiences, clean(audience))
	}
	*r = row{
		EventID:      clean(e.ID),
		SystemID:     string(e.System),
		SystemName:   clean(systemName),
		SystemNative: clean(e.Native),
		Time:         micros(e.Time),
		Learned:      micros(e.Learned),

		Identity:       clean(string(e.Identity)),
		IdentityType:   clean(string(e.Type)),
		ActorKind:      clean(e.Actor.Kind),
		ActorNamespace: clean(e.Actor.Namespace),
		ActorName:      clean(e.Actor.Name),
		Principal:      clean(e.Principal),

		Credential:     clean(e.Credential),
		CredentialType: clean(string(e.CredentialType)),
		BoundKind:      clean(e.Bound.Kind),
		BoundNamespace: clean(e.Bound.Namespace),
		BoundName:      clean(e.Bound.Name),
		Node:           clean(e.Node),

		MintedCredential:     clean(e.Minted.Credential),
		MintedType:           clean(string(e.Minted.Type)),
		MintedForKind:        clean(e.Minted.For.Kind),
		MintedForNamespace:   clean(e.Minted.For.Namespace),
		MintedForName:        clean(e.Minted.For.Name),
		MintedBoundKind:      clean(e.Minted.Bound.Kind),
		MintedBoundNamespace: clean(e.Minted.Bound.Namespace),
		MintedBoundName:      clean(e.Minted.Bound.Name),
		MintedLifetime:       e.Minted.Lifetime.Microseconds(),
		MintedAudiences:      audiences,

		Chain: chain,

		Action:            clean(e.Action),
		Write:             e.Write,
		ResourceKind:      clean(e.Resource.Kind),
		ResourceNamespace: clean(e.Resource.Namespace),
		ResourceName:      clean(e.Resource.Name),
		BindingKind:       clean(e.Binding.Kind),
		BindingNamespace:  clean(e.Binding.Namespace),
		BindingName:       clean(e.Binding.Name),

		Address:   clean(e.Address),
		UserAgent: clean(e.UserAgent),
		Outcome:   clean(string(e.Outcome)),
		Code:      int32Of(e.Code),
		Reason:    clean(e.Reason),

		Parent:     clean(e.Parent),
		Root:       clean(e.Root),
		Depth:      int32Of(e.Depth),
		SelfMinted: e.SelfMinted,
		Outside:    e.Outside,
		Dormant:    e.Dormant.Microseconds(),
		Known:      e.Known,
	}
	if !e.Minted.Expires.IsZero() {
		us := micros(e.Minted.Expires)
		r.MintedExpires = &us
	}
}

// rawBytes gives the raw event back, nil when there is none.
func (r *row) rawBytes() []byte {
	if r.Raw == nil {
		return nil
	}
	return []byte(*r.Raw)
}

// activity gives the event back. It shares the row's strings but not its lists.
func (r *row) activity() *remit.Activity {
	e := &remit.Activity{
		ID:      r.EventID,
		System:  remit.ID(r.SystemID),
		Native:  r.SystemNative,
		Time:    fromMicros(r.Time),
		Learned: fromMicros(r.Learned),

		Identity:  remit.ID(r.Identity),
		Type:      remit.IdentityType(r.IdentityType),
		Actor:     remit.Ref{Kind: r.ActorKind, Namespace: r.ActorNamespace, Name: r.ActorName},
		Principal: r.Principal,

		Credential:     r.Credential,
		CredentialType: remit.CredentialType(r.CredentialType),
		Bound:          remit.Ref{Kind: r.BoundKind, Namespace: r.BoundNamespace, Name: r.BoundName},
		Node:           r.Node,

		Minted: remit.Minted{
			Credential: r.MintedCredential,
			Type:       remit.CredentialType(r.MintedType),
			For:        remit.Ref{Kind: r.MintedForKind, Namespace: r.MintedForNamespace, Name: r.MintedForName},
			Bound:      remit.Ref{Kind: r.MintedBoundKind, Namespace: r.MintedBoundNamespace, Name: r.MintedBoundName},
			Lifetime:   time.Duration(r.MintedLifetime) * time.Microsecond,
		},

		Action:   r.Action,
		Write:    r.Write,
		Resource: remit.Ref{Kind: r.ResourceKind, Namespace: r.ResourceNamespace, Name: r.ResourceName},
		Binding:  remit.Ref{Kind: r.BindingKind, Namespace: r.BindingNamespace, Name: r.BindingName},

		Address:   r.Address,
		UserAgent: r.UserAgent,
		Outcome:   remit.Outcome(r.Outcome),
		Code:      int(r.Code),
		Reason:    r.Reason,

		Parent:     r.Parent,
		Root:       r.Root,
		Depth:      int(r.Depth),
		SelfMinted: r.SelfMinted,
		Outside:    r.Outside,
		Dormant:    time.Duration(r.Dormant) * time.Microsecond,
		Known:      r.Known,
	}
	if r.MintedExpires != nil {
		e.Minted.Expires = fromMicros(*r.MintedExpires)
	}
	if len(r.MintedAudiences) > 0 {
		e.Minted.Audiences = append([]string(nil), r.MintedAudiences...)
	}
	for _, link := range r.Chain {
		e.Chain = append(e.Chain, remit.Ref(link))
	}
	return e
}
