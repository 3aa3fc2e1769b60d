package detect

import (
	"net/netip"
	"time"

	"remit"
	"remit/connector"
	"remit/detect/sigma"
)

// The fields that attribution adds to an event and that rules may use like any
// other. What is not known of an event is absent.
const (
	fieldType = iota
	fieldKind
	fieldNamespace
	fieldName
	fieldPrincipal
	fieldKnown
	fieldDormantDays
	fieldCredential
	fieldCredentialType
	fieldCredentialBound
	fieldCredentialLegacy
	fieldCredentialDepth
	fieldCredentialSelfMinted
	fieldAddress
	fieldAddressPublic
	fieldAddressOutside
	fieldMint
	fieldMintSelf
	fieldMintOther
	fieldMintBound
	fieldMintLifetime
	fieldMintForKind
	fieldMintForNamespace
	fieldMintForName
	fieldMintForType
	fieldChainFirst
	fieldChainDepth
	fieldAction
	fieldWrite
	fieldResourceKind
	fieldResourceNamespace
	fieldResourceName
	fieldOutcome
	fieldCode
	fieldIdentity
	fieldRoot
	fieldAs
	fieldUserAgent
	fieldCount
)

// Attributed are the names of those fields.
var Attributed = func() []string {
	names := [fieldCount]string{
		fieldType:                 "remit.identity.type",
		fieldKind:                 "remit.identity.kind",
		fieldNamespace:            "remit.identity.namespace",
		fieldName:                 "remit.identity.name",
		fieldPrincipal:            "remit.principal",
		fieldKnown:                "remit.identity.known",
		fieldDormantDays:          "remit.identity.dormant_days",
		fieldCredential:           "remit.credential",
		fieldCredentialType:       "remit.credential.type",
		fieldCredentialBound:      "remit.credential.bound",
		fieldCredentialLegacy:     "remit.credential.legacy",
		fieldCredentialDepth:      "remit.credential.depth",
		fieldCredentialSelfMinted: "remit.credential.self_minted",
		fieldAddress:              "remit.address",
		fieldAddressPublic:        "remit.address.public",
		fieldAddressOutside:       "remit.address.outside",
		fieldMint:                 "remit.mint",
		fieldMintSelf:             "remit.mint.self",
		fieldMintOther:            "remit.mint.other",
		fieldMintBound:            "remit.mint.bound",
		fieldMintLifetime:         "remit.mint.lifetime",
		fieldMintForKind:          "remit.mint.for.kind",
		fieldMintForNamespace:     "remit.mint.for.namespace",
		fieldMintForName:          "remit.mint.for.name",
		fieldMintForType:          "remit.mint.for.type",
		fieldChainFirst:           "remit.chain.first",
		fieldChainDepth:           "remit.chain.depth",
		fieldAction:               "remit.action",
		fieldWrite:                "remit.write",
		fieldResourceKind:         "remit.resource.kind",
		fieldResourceNamespace:    "remit.resource.namespace",
		fieldResourceName:         "remit.resource.name",
		fieldOutcome:              "remit.outcome",
		fieldCode:                 "remit.code",
		fieldIdentity:             "remit.identity",
		fieldRoot:                 "remit.credential.root",
		fieldAs:                   "remit.as",
		fieldUserAgent:            "remit.user_agent",
	}
	return names[:]
}()

// attribution fills the attributed fields of one event after another.
type attribution struct {
	values [fieldCount]sigma.Value
	public map[string]bool // by address, because the same few come again
}

const maxAddresses = 1 << 16

func (f *attribution) fill(e *connector.Event) []sigma.Value {
	a, v := &e.Activity, &f.values
	*v = [fieldCount]sigma.Value{}
	text := func(field int, s string) {
		if s != "" {
			v[field] = sigma.String(s)
		}
	}
	text(fieldIdentity, string(a.Identity))
	text(fieldType, string(a.Type))
	text(fieldKind, a.Actor.Kind)
	text(fieldNamespace, a.Actor.Namespace)
	text(fieldName, a.Actor.Name)
	text(fieldPrincipal, a.Principal)
	if a.Known || a.Inventoried {
		v[fieldKnown] = sigma.Bool(a.Known)
	}
	if a.Dormant > 0 {
		v[fieldDormantDays] = sigma.Number(float64(a.Dormant) / float64(24*time.Hour))
	}
	if a.Credential != "" {
		v[fieldCredential] = sigma.String(a.Credential)
		text(fieldCredentialType, string(a.CredentialType))
		v[fieldCredentialBound] = sigma.Bool(a.Bound != (remit.Ref{}))
		v[fieldCredentialLegacy] = sigma.Bool(a.CredentialType == remit.StaticToken)
		v[fieldCredentialDepth] = sigma.Number(float64(a.Depth))
		v[fieldCredentialSelfMinted] = sigma.Bool(a.SelfMinted)
		text(fieldRoot, a.Root)
	}
	if a.Address != "" {
		v[fieldAddress] = sigma.String(a.Address)
		v[fieldAddressPublic] = sigma.Bool(f.isPublic(a.Address))
		v[fieldAddressOutside] = sigma.Bool(a.Outside)
	}
	if f.mints(a) {
		m := &a.Minted
		self := m.For == a.Actor
		v[fieldMint] = sigma.Bool(true)
		v[fieldMintSelf] = sigma.Bool(self)
		// A kubelet's mintings for the pods of its node are the normal path;
		// the API server refuses it all others.
		v[fieldMintOther] = sigma.Bool(!self && m.For != (remit.Ref{}) && a.Actor.Kind != "Node")
		if m.Bound != (remit.Ref{}) || m.Lifetime > 0 || !m.Expires.IsZero() {
			v[fieldMintBound] = sigma.Bool(m.Bound != (remit.Ref{})) // at level Metadata it is not known
		}
		if m.Lifetime > 0 {
			v[fieldMintLifetime] = sigma.Number(m.Lifetime.Seconds())
		}
		text(fieldMintForKind, m.For.Kind)
		text(fieldMintForNamespace, m.For.Namespace)
		text(fieldMintForName, m.For.Name)
		text(fieldMintForType, string(m.Type))
	}
	if n := len(a.Chain); n > 0 {
		text(fieldChainFirst, a.Chain[n-1].Name)
		v[fieldChainDepth] = sigma.Number(float64(n))
	}
	text(fieldAs, a.As.Name)
	text(fieldAction, a.Action)
	v[fieldWrite] = sigma.Bool(a.Write)
	text(fieldResourceKind, a.Resource.Kind)
	text(fieldResourceNamespace, a.Resource.Namespace)
	text(fieldResourceName, a.Resource.Name)
	text(fieldOutcome, string(a.Outcome))
	if a.Code != 0 {
		v[fieldCode] = sigma.Number(float64(a.Code))
	}
	text(fieldUserAgent, a.UserAgent)
	return v[:]
}

// mints says whether the event issued a credential.
func (f *attribution) mints(a *remit.Activity) bool {
	return a.Outcome == remit.Allowed && (a.Minted.Credential != "" || a.Minted.For != (remit.Ref{}))
}

func (f *attribution) isPublic(address string) bool {
	if p, ok := f.public[address]; ok {
		return p
	}
	ip, err := netip.ParseAddr(address)
	ip = ip.Unmap()
	p := err == nil && ip.IsGlobalUnicast() && !ip.IsPrivate() && !carrierNAT.Contains(ip)
	if f.public == nil || len(f.public) >= maxAddresses {
		f.public = make(map[string]bool)
	}
	f.public[address] = p
	return p
}

// carrierNAT is the shared address space of RFC 6598, which clouds use inside.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")
