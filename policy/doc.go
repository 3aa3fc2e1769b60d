// Package policy finds what is wrong with identities, credentials and grants.
//
// A policy is a short YAML document: a CEL expression that is true for what is
// wrong, how bad that is, which risks and controls it touches, what to do about
// it, and tests of its own. [Load] reads the built-in pack and the user's own
// documents into a [Set]; an [Evaluator] runs the set over the inventory, page
// by page, and keeps the findings; [Test] runs the tests that the documents
// carry.
//
// Expressions are type-checked against the vocabulary: a misspelt field is an
// error with the file, line and column in the YAML, and all other policies
// still run. They cannot change anything, cannot loop without end (their cost
// is limited) and cannot stop the evaluation of anything else.
//
// The format is documented in docs/how-to/write-a-policy.md; the built-in pack,
// and all variables and functions, in docs/reference/policies.md, which is
// generated from this package.
package policy

//go:generate go run ./reference
