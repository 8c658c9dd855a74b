// Package snapshot carries machines about: it takes from a machine's sysfs what
// discovery reads, and nothing else, and keeps it in one archive.
//
//	root ─ Capture ─→ Tree ─ Archive ─→ snapshot.tar.gz ─ Read ─→ Tree ─ topology.Discover ─→ Machine
//
// [Open] is the way in for a program that is given a path: a folder, "/" or an
// archive.
//
// # What is in a snapshot
//
// Snapshots are passed on to strangers, so nothing gets into one by being in the
// way. [Capture] has [topology.Discover] read the machine and writes down what it
// reads, which is the part that matters; then each of these files must have a
// rule that says what such a file looks like, and only what the rule understood
// of it is written, in the kernel's spelling. What is neither read nor understood
// does not exist for a snapshot: serial numbers, network addresses, host names,
// firmware tables, names in the paths of devices.
//
// A rule that was forgotten, or that loses something, does not go unnoticed:
// Capture discovers the machine once more, from what it has written, and the two
// must be equal.
package snapshot
