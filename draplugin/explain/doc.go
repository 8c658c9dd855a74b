// Package explain answers, without a cluster and without root, what would be
// allocated of a node and why: for the claims in some files, which device, which
// CPUs, and what decided; and if a claim does not fit, what is nearest.
//
// Everything is the real thing: the slices are those that topolet publishes of the
// machine, the allocator is kube-scheduler's, and the CPUs are the ledger's. Data
// passes through it like this:
//
//	files    → Read     → Object, strictly decoded and checked
//	machine  → Node     → the ledger with what is held, the slices, the classes
//	both     → Explain  → Answer
//	Answer   → WriteText, or JSON
//
// What cannot be known here is said, never guessed: devices of other drivers are
// left out unless their slices are given.
package explain
