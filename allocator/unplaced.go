package allocator

// Every container of a claim is given a mount that cannot be made: at Unplaced, of
// UnplacedSource. Whoever places the container takes it away. So a container that nobody
// placed, because nobody was asked, cannot be created, and the runtime's error says why.
const (
	// Unplaced is the mount's path in the container.
	Unplaced = "/run/topolet/unplaced"
	// UnplacedSource is the mount's path on the host, where nobody can make it.
	UnplacedSource = "/proc/topolet-was-not-asked-where-this-container-runs"
)
