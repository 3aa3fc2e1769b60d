// Package lifecycle says until when credentials may be used, and what happens to
// identities that nobody needs any more.
//
// A [Policy] demands of the credentials that it selects that they are rotated, end,
// and are not left unused. [Config.Standing] tells where one credential stands under
// them at a moment, and what comes next: a pure function of what is known. A [Judge]
// keeps that current, at every change and by the clock, as findings: what is to be
// rotated, disabled or revoked is told there, and nothing here changes a system.
//
// Offboarding builds on the findings of other policies: an account that nothing
// runs as, an owner who has left, rights of what was deleted. They become findings
// that ask for disabling at once and for removal after a grace, and that resolve
// when the reason goes away.
package lifecycle
