// Package sigma evaluates Sigma detection rules on events as they come.
//
// [Parse] and [Load] read rules, correlations and filters from YAML; [Compile]
// joins all of them into one [Engine], which is asked with one [Event] at a time
// and answers with the rules that match. What a rule asks for and the engine
// cannot do is named by [Compile] with its reason; nothing is ignored silently.
//
// Rules are indexed by the equalities that they need, so that the cost of an
// event grows with the rules that may match it and not with those that are
// loaded. Correlations live on the time of events, never on the clock, so that
// an import gives what the live stream would have given; their state is bounded.
//
// The format is https://github.com/SigmaHQ/sigma-specification, version 2.1.
// What is supported, and how fields and logsources are found in events, is
// documented in docs/concepts/sigma.md.
package sigma
