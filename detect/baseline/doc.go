// Package baseline learns what each identity usually does and says when it does
// something else.
//
// [Baselines] reads activities in roughly the order of their event times, which
// are its only clock, and keeps four kinds of small record of a fixed size:
//
//   - of an identity: its operations, resources, networks and user agents, its
//     hours and weekdays, its rates and the length of its pauses;
//   - of a strand, which is one credential, one lineage, or all tokens bound to
//     one pod: from which addresses it is used;
//   - of a minting, which is the tokens issued for one identity and one pod: who
//     renews them, from where, how often;
//   - of a group of peers, which are the identities of one kind in one
//     namespace: which operations their members share.
//
// The same activities give the same signals: nothing here looks at the wall
// clock, draws at random, or depends on the order of a map. A state that was
// stored and loaded goes on as if it had never stopped.
//
// Records hold hashes of names, not the names. Two things are kept as they are,
// because explanations need them: IP addresses, and the first word of the user
// agent of those who renew tokens, without its version.
package baseline
