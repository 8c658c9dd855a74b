// Package crashpoint names the moments between two lasting effects of topolet, at
// which its process may end: a test kills it at each of them and looks at what the
// next process makes of the rest.
//
// Ordinary builds have none of it: [Reached] and [In] are empty. A program built
// with the tag crashpoints ends, as if by SIGKILL, when it reaches the point that the
// file [FileName] in its state folder names.
package crashpoint

// Point is a moment at which the process may end.
type Point string

// The points, in the order in which the life of a claim passes them. Saving is part
// of a grant and of a release.
const (
	// CheckpointWritten: the new checkpoint is on the disk under its temporary name.
	CheckpointWritten Point = "checkpoint-written"
	// CheckpointRenamed: it has the checkpoint's name, perhaps not on the disk yet.
	CheckpointRenamed Point = "checkpoint-renamed"
	// CheckpointSynced: its name is on the disk too.
	CheckpointSynced Point = "checkpoint-synced"
	// Granted: the grant is stored, and there is no CDI spec.
	Granted Point = "granted"
	// HandoverStored: what is needed to give a function back is stored, and nothing was
	// written to the kernel yet.
	HandoverStored Point = "handover-stored"
	// HandedOver: a function is at its vfio driver, and the ledger does not know.
	HandedOver Point = "handed-over"
	// GivenBack: a function is at its own driver again, and the ledger does not know.
	GivenBack Point = "given-back"
	// SpecWritten: there is a CDI spec, and the kubelet has no answer.
	SpecWritten Point = "spec-written"
	// Admitted: a container has its CPUs, and the runtime has no answer.
	Admitted Point = "admitted"
	// PartitionPrepared: the cgroups above a container pass its CPUs down, and its own
	// is no partition yet.
	PartitionPrepared Point = "partition-prepared"
	// PartitionMade: it is one, and the ledger does not know.
	PartitionMade Point = "partition-made"
	// Verified: a container may start, and the runtime has no answer.
	Verified Point = "verified"
	// ReleaseStored: the release is stored, and the CDI spec is still there.
	ReleaseStored Point = "release-stored"
	// SpecRemoved: nothing is left of the claim, and the kubelet has no answer.
	SpecRemoved Point = "spec-removed"
)

// All returns every point.
func All() []Point {
	return []Point{
		CheckpointWritten, CheckpointRenamed, CheckpointSynced, Granted,
		HandoverStored, HandedOver, GivenBack, SpecWritten,
		Admitted, PartitionPrepared, PartitionMade, Verified, ReleaseStored, SpecRemoved,
	}
}

// FileName is the name of the file in the state folder that says at which point to
// crash. It is removed before, so that the next process lives.
const FileName = "crashpoint"
