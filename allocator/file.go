package allocator

import "os"

// ReplaceFile puts another file in the place of the one at a path, as that of the grants is
// replaced: a crash leaves the old one or the new one. The error is a [*SaveError].
func ReplaceFile(path string, data []byte) error {
	if err := replaceFile(path, data, (*os.File).Sync); err != nil {
		return &SaveError{Path: path, Err: err}
	}
	return nil
}
