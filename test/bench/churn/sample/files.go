package sample

// The files of the sampler's folder.
const (
	// UIDsFile has the UIDs of exclusive pods, one a line, and at last [End].
	UIDsFile = "exclusive"
	End      = "end"
	// ResultFile has the [Result] in JSON. It is empty at first.
	ResultFile = "result.json"
)
