package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tree writes the entries below dir.
func Tree(dir string, entries []Entry) error {
	for _, e := range append(parents(entries), entries...) {
		if err := e.write(filepath.Join(dir, e.Path)); err != nil {
			return fmt.Errorf("write the machine's files: %w", err)
		}
	}
	return nil
}

func (e Entry) write(path string) error {
	switch {
	case e.Dir:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	case e.Link != "":
		return os.Symlink(e.Link, path)
	case e.Source != "":
		if linked, err := e.link(path); linked || err != nil {
			return err
		}
		fallthrough
	default:
		data, err := e.data()
		if err != nil {
			return err
		}
		if err := os.WriteFile(path, data, e.mode()); err != nil {
			return err
		}
	}
	return os.Chmod(path, e.mode())
}

// link saves the copy of a large file, where both are on one file system and
// the permissions are what they should be.
func (e Entry) link(path string) (bool, error) {
	source, err := filepath.EvalSymlinks(e.Source)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(source)
	if err != nil {
		return false, err
	}
	return info.Mode().Perm() == e.mode() && os.Link(source, path) == nil, nil
}

// Image makes an ext4 file system with a journal from the files below dir. It
// takes the place of file when it is complete. env is added to the environment
// of the program that makes it.
func Image(ctx context.Context, env []string, dir, file string, megabytes int) error {
	temp := file + ".partial"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make the root file system: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-d", dir, temp, fmt.Sprintf("%dM", megabytes))
	cmd.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("mke2fs: %w\n%s", err, out.String())
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("make the root file system: %w", err)
	}
	return nil
}
