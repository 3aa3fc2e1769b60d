// Package remit is the vocabulary of Remit: the nouns with which every other
// package speaks about identities, what they hold, what they may do and what
// they do, and the contracts between those packages.
//
// Remit governs access for every identity, human or machine. For each one it
// answers four questions: who owns it, what may it do, what does it do, and
// until when. The nouns follow from the questions:
//
//   - a [System] is one connected platform instance;
//   - an [Identity] acts in a system and answers to an [Owner];
//   - a [Credential] is what it authenticates with; credentials that mint
//     credentials form a lineage;
//   - a [Grant] gives it a [Role] or single permissions in a scope; a
//     [Resource] is what grants and activity are about;
//   - a [Relation] leads from one identity to another: member of, runs as,
//     can act as;
//   - an [Activity] is one thing it did; [Usage] sums that up against grants;
//   - a [Finding] is something wrong with one of them; a [Response] mends it;
//     a [Review] asks people; [Evidence] proves all of it afterwards.
//
// Three streams meet in this vocabulary and in the store, and nowhere else:
// inventory (connector → inventory → store → policy → findings), activity
// (ingest → queue → lineage, usage, detection → archive) and response
// (finding → plan → connector → evidence).
//
// The package imports the standard library only. Its types are plain data:
// they are safe to copy and to read concurrently, and nothing in them changes
// behind the caller's back. A zero [time.Time] always means "not known".
package remit
