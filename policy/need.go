package policy

import (
	"cel.dev/cel-go/common/ast"
)

// need is what has to be loaded around a subject before its policies can run:
// the fields that they name, so that nobody pays for what no policy asks.
type need uint32

const (
	needCredentials need = 1 << iota
	needGrants
	needEffective
	needGroups
	needAccounts
	needWorkloads
	needRelations
	needInbound

	needIdentity // of a credential or grant: the record of its identity
	needLocation
	needUsers
	needCopies
	needRole

	needNeighbours = needCredentials | needGrants | needEffective | needGroups |
		needAccounts | needWorkloads | needRelations | needInbound
)

var needOf = map[string]need{
	"Identity.credentials":      needCredentials,
	"Identity.grants":           needGrants,
	"Identity.effective_grants": needEffective,
	"Identity.assigned_grants":  needEffective,
	"Identity.groups":           needGroups,
	"Identity.accounts":         needAccounts,
	"Identity.workloads":        needWorkloads,
	"Identity.relations":        needRelations,
	"Identity.inbound":          needInbound,
	"Credential.identity":       needIdentity,
	"Credential.location":       needLocation,
	"Credential.users":          needUsers,
	"Credential.copies":         needCopies,
	"Grant.identity":            needIdentity,
	"Grant.role":                needRole,
	"Grant.permissions":         needRole,
}

// neighbourly says whether a field belongs to the neighbourhood, which is not
// there yet when the guards run.
func neighbourly(c *class, field string) bool { return needOf[c.name+"."+field] != 0 }

// needs finds what an expression asks for.
func needs(e *expression) need {
	var all need
	visit := ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() {
		case ast.SelectKind:
			sel := x.AsSelect()
			all |= needOf[e.ast.GetType(sel.Operand().ID()).TypeName()+"."+sel.FieldName()]
		case ast.CallKind:
			call := x.AsCall()
			if !call.IsMemberFunction() || call.FunctionName() != "allows" && call.FunctionName() != "writes" {
				return
			}
			switch e.ast.GetType(call.Target().ID()).TypeName() {
			case identityClass.name:
				all |= needEffective
			case grantClass.name:
				all |= needRole
			}
		}
	})
	ast.PostOrderVisit(e.ast.Expr(), visit)
	return all
}
