package allocator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/topolet/topolet/topology"
)

// checkpointVersion is the version of the file's format. A change that an older
// topolet would misread gets a new number.
const checkpointVersion = 1

// checkpoint is the content of the file.
type checkpoint struct {
	Version int     `json:"version"`
	Grants  []Grant `json:"grants"`
}

// CheckpointError says that a checkpoint exists and cannot be used.
type CheckpointError struct {
	Path   string
	Reason string
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("checkpoint %s: %s", e.Path, e.Reason)
}

// FileStore keeps the grants in one JSON file. It is safe to use from one
// goroutine at a time.
type FileStore struct {
	// Path is the file's path. Its folder must exist.
	Path string
}

// Load returns the stored grants, none if there is no file. A file that cannot
// be read, is of a version that this topolet does not know or contradicts itself
// is a [*CheckpointError], and stays where it is.
func (s FileStore) Load() ([]Grant, error) {
	data, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w", err)
	}
	// The version first: only then is it known which fields to expect.
	var version struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &version); err != nil {
		return nil, &CheckpointError{Path: s.Path, Reason: fmt.Sprintf("not JSON: %v", err)}
	}
	switch {
	case version.Version == nil:
		return nil, &CheckpointError{Path: s.Path, Reason: "field version is missing"}
	case *version.Version != checkpointVersion:
		return nil, &CheckpointError{Path: s.Path, Reason: fmt.Sprintf(
			"field version is %d, this topolet reads version %d: run the topolet that wrote it, or drain the node before changing versions",
			*version.Version, checkpointVersion)}
	}
	var c checkpoint
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return nil, &CheckpointError{Path: s.Path, Reason: err.Error()}
	}
	if err := consistent(c.Grants); err != nil {
		return nil, &CheckpointError{Path: s.Path, Reason: err.Error()}
	}
	return c.Grants, nil
}

// consistent refuses grants that no ledger could have written.
func consistent(grants []Grant) error {
	var taken topology.CPUSet
	seen := map[ClaimUID]bool{}
	for i, g := range grants {
		switch {
		case g.UID == "":
			return fmt.Errorf("grants[%d].uid is empty", i)
		case seen[g.UID]:
			return fmt.Errorf("grants[%d].uid %s appears twice", i, g.UID)
		case len(g.Parts) == 0:
			return fmt.Errorf("grants[%d] (%s) has no parts", i, g.UID)
		}
		seen[g.UID] = true
		for j, p := range g.Parts {
			if p.CPUs.Size() != p.Count || p.Count == 0 && len(p.MemoryNodes) == 0 {
				return fmt.Errorf("grants[%d].parts[%d] has CPUs %q for a count of %d, and memory of NUMA nodes %v",
					i, j, p.CPUs, p.Count, p.MemoryNodes)
			}
			if p.RunsOn().IsEmpty() && p.Count > 0 || !p.Idle.IsSubsetOf(p.CPUs) {
				return fmt.Errorf("grants[%d].parts[%d] has CPUs %s, of which %q are idle", i, j, p.CPUs, p.Idle)
			}
			if p.CPUs.Intersects(taken) {
				return fmt.Errorf("grants[%d].parts[%d] has CPUs %s, of which %s are granted twice",
					i, j, p.CPUs, p.CPUs.Intersection(taken))
			}
			taken = taken.Union(p.CPUs)
		}
	}
	return nil
}

// Save implements [Store]. The file is replaced as a whole: a crash leaves the
// old one or the new one.
func (s FileStore) Save(grants []Grant) error {
	data, err := json.MarshalIndent(checkpoint{Version: checkpointVersion, Grants: grants}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if err := replaceFile(s.Path, append(data, '\n'), (*os.File).Sync); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return nil
}

// replaceFile puts another file in the place of the one at the path, and returns
// when it is on the disk. Sync is [os.File.Sync].
func replaceFile(path string, data []byte, sync func(*os.File) error) error {
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) //nolint:errcheck // gone already after the rename
	_, err = temp.Write(data)
	if err = errors.Join(err, sync(temp), temp.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return err
	}
	// The rename is on the disk only when its folder is.
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(sync(folder), folder.Close())
}

// SetAside renames a checkpoint that cannot be used and returns its new path, so
// that a person or another version of topolet can still read it.
func (s FileStore) SetAside(now time.Time) (string, error) {
	aside := fmt.Sprintf("%s.unusable-%s", s.Path, now.UTC().Format("20060102T150405.000000000Z"))
	if err := os.Rename(s.Path, aside); err != nil {
		return "", fmt.Errorf("set checkpoint aside: %w", err)
	}
	return aside, nil
}
