// Package allocator decides which CPUs a claim gets and remembers who has them.
//
// It has two halves. Choice ([Domains], [Domain.Choose]) is a pure function: a
// machine, the free CPUs and a count give a set of whole cores, and
// [Domain.Explain] says why these. The [Ledger] is the one mutable state of the
// node: claims with their grants, and containers with the claims they name. What
// every container's cpuset ought to be is computed from that state, never stored
// beside it.
//
// Data passes through it like this:
//
//	Prepare          → Ledger.Grant    → CPUs chosen, checkpoint written
//	CreateContainer  → Ledger.Admit    → the container's CPUs
//	any event        → Ledger.Updates  → containers whose CPUs must change
//	container gone   → Ledger.Remove
//	Unprepare        → Ledger.Release  → CPUs return to the shared pool
//	machine changed  → Ledger.Replace  → another [Inventory], grants as they are
//
// The package knows neither Kubernetes nor the container runtime. Its only
// effect on the world is the checkpoint, behind the [Store] interface.
package allocator
