package allocator

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/topolet/topolet/allocator/crashpoint"
)

// checkpointVersion is the version of the file's format. A change that an older
// topolet would misread gets a new number.
const checkpointVersion = 1

// checkpoint is the content of the file. Each grant is read by itself.
type checkpoint[G Grant | json.RawMessage] struct {
	Version int `json:"version"`
	Grants  []G `json:"grants"`
}

// CheckpointError says that a checkpoint exists and that nothing of it can be used.
type CheckpointError struct {
	Path   string
	Reason string
}

func (e *CheckpointError) Error() string {
	return fmt.Sprintf("checkpoint %s: %s", e.Path, e.Reason)
}

// SaveError says that a file could not be written, and what to do about it.
type SaveError struct {
	Path string
	Err  error
}

func (e *SaveError) Error() string {
	return fmt.Sprintf("write %s: %v: %s", e.Path, e.Err, e.remedy())
}

func (e *SaveError) Unwrap() error { return e.Err }

func (e *SaveError) remedy() string {
	dir := filepath.Dir(e.Path)
	switch {
	case errors.Is(e.Err, syscall.ENOSPC), errors.Is(e.Err, syscall.EDQUOT):
		return fmt.Sprintf("free some space on the disk of folder %s; it is tried again", dir)
	case errors.Is(e.Err, syscall.EROFS), errors.Is(e.Err, fs.ErrPermission):
		return fmt.Sprintf("make folder %s writable; it is tried again", dir)
	}
	return fmt.Sprintf("mend the disk of folder %s; it is tried again", dir)
}

// FileStore keeps the grants in one JSON file. It is safe to use from one
// goroutine at a time.
type FileStore struct {
	// Path is the file's path. Its folder must exist.
	Path string
}

// Load returns the stored grants, none if there is no file. A file that is of a
// version that this topolet does not know, or not a checkpoint at all, is a
// [*CheckpointError]; one of which some grants cannot be used is a
// [*BadGrantsError], which comes with the others. Any other error says that the
// file could not be read. The file stays as it is.
func (s FileStore) Load() ([]Grant, error) {
	data, err := os.ReadFile(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoint: %w: without it nobody knows who holds which CPUs: make the file readable, "+
			"or, if it is lost, drain the node and move it away", err)
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
	var c checkpoint[json.RawMessage]
	if err := strictly(data, &c); err != nil {
		return nil, &CheckpointError{Path: s.Path, Reason: err.Error()}
	}
	good, bad := sortOut(c.Grants)
	if len(bad) > 0 {
		return good, &BadGrantsError{Path: s.Path, Grants: bad}
	}
	return good, nil
}

// strictly decodes JSON and refuses fields that it does not know.
func strictly(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// Save implements [Store]. The file is replaced as a whole: a crash leaves the
// old one or the new one. The error is a [*SaveError].
func (s FileStore) Save(grants []Grant) error {
	data, err := json.MarshalIndent(checkpoint[Grant]{Version: checkpointVersion, Grants: grants}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode checkpoint: %w", err)
	}
	if err := replaceFile(s.Path, append(data, '\n'), (*os.File).Sync); err != nil {
		return &SaveError{Path: s.Path, Err: err}
	}
	return nil
}

// replaceFile puts another file in the place of the one at the path, and returns
// when it is on the disk. Sync is [os.File.Sync]. What a crash leaves under the
// temporary name, which is always the same, is overwritten by the next call.
func replaceFile(path string, data []byte, sync func(*os.File) error) error {
	dir := filepath.Dir(path)
	name := filepath.Join(dir, "."+filepath.Base(path)+"-new")
	temp, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(name) //nolint:errcheck // gone already after the rename
	_, err = temp.Write(data)
	if err = errors.Join(err, sync(temp), temp.Close()); err != nil {
		return err
	}
	crashpoint.Reached(crashpoint.CheckpointWritten)
	if err := os.Rename(name, path); err != nil {
		return err
	}
	crashpoint.Reached(crashpoint.CheckpointRenamed)
	// The rename is on the disk only when its folder is.
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(sync(folder), folder.Close()); err != nil {
		return err
	}
	crashpoint.Reached(crashpoint.CheckpointSynced)
	return nil
}

// SetAside renames a checkpoint that cannot be used and returns its new path, so
// that a person or another version of topolet can still read it.
func (s FileStore) SetAside() (string, error) {
	data, err := os.ReadFile(s.Path)
	if err != nil {
		return "", fmt.Errorf("set checkpoint aside: %w", err)
	}
	aside := s.asideName(data)
	if err := os.Rename(s.Path, aside); err != nil {
		return "", fmt.Errorf("set checkpoint aside: %w", err)
	}
	return aside, nil
}

// asideName is the name of a file with this content beside the checkpoint: it never
// takes the place of another, whatever the clock says, and the same content comes
// once however often it is found.
func (s FileStore) asideName(content []byte) string {
	return fmt.Sprintf("%s.unusable-%x", s.Path, sha256.Sum256(content))[:len(s.Path)+len(".unusable-")+16]
}
