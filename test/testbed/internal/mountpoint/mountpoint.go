// Package mountpoint makes and removes the folders of the host that a testbed
// mounts its own folders on, out of everybody else's sight: programs have a
// few paths fixed in their source, such as /var/lib/kubelet.
//
// Several testbeds share such a folder, each seeing its own content there. The
// folder carries a mark when a testbed made it, and the last that uses it
// removes it. A folder that was there before, or that somebody has put
// something into, stays.
package mountpoint

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const mark = ".made-by-topolet-testbed"

// Lock keeps testbeds from removing a folder that another is about to mount
// on: shared while mounting, exclusive while removing. It is released by
// calling release, by the end of the process and by exec.
func Lock(exclusive bool) (release func(), err error) {
	// Any folder that is always there will do; a file would be left behind.
	f, err := os.Open("/run")
	if err != nil {
		return nil, fmt.Errorf("lock the mount points: %w", err)
	}
	how := syscall.LOCK_SH
	if exclusive {
		how = syscall.LOCK_EX
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the mount points: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Make makes the folder, with its mark, unless it is there.
func Make(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := Make(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := makeMarked(dir); err != nil {
		return fmt.Errorf("make the mount point %s: %w", dir, err)
	}
	return nil
}

// makeMarked makes the folder under another name first: whenever this process is
// killed, there is no folder of that name without its mark.
func makeMarked(dir string) error {
	unfinished, err := os.MkdirTemp(filepath.Dir(dir), mark+"-")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(unfinished, 0o755), os.WriteFile(filepath.Join(unfinished, mark), nil, 0o644)); err != nil {
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	err = unix.Renameat2(unix.AT_FDCWD, unfinished, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE)
	if errors.Is(err, fs.ErrExist) { // another was faster
		return os.RemoveAll(unfinished)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	return nil
}

// Remove removes the folder, and marked ones above it, if a testbed made it,
// nobody uses it as a mount point and nothing else is in it. The caller has the
// exclusive lock, so what is unfinished beside it is nobody's any more.
func Remove(dir string) error {
	unfinished, err := filepath.Glob(filepath.Join(filepath.Dir(dir), mark+"-*"))
	if err != nil {
		return fmt.Errorf("look beside the mount point %s: %w", dir, err)
	}
	for _, u := range unfinished {
		if err := os.RemoveAll(u); err != nil {
			return fmt.Errorf("remove an unfinished mount point: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Remove(filepath.Dir(dir)) // whoever made that was killed before it made this
	}
	if err != nil {
		return fmt.Errorf("look at the mount point %s: %w", dir, err)
	}
	if len(entries) != 1 || entries[0].Name() != mark {
		return nil
	}
	used, err := InUse(dir)
	if err != nil || used {
		return err
	}
	if err := os.Remove(filepath.Join(dir, mark)); err != nil {
		return fmt.Errorf("remove the mount point %s: %w", dir, err)
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove the mount point %s: %w", dir, err)
	}
	return Remove(filepath.Dir(dir))
}

// InUse tells whether something is mounted on dir in any mount namespace. The
// kernel would let it be removed all the same, and the mount with it.
func InUse(dir string) (bool, error) {
	tables, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		return false, err
	}
	seen := map[string]bool{}
	for _, table := range tables {
		// A process may be gone by now; what it had mounted is gone too, or
		// is in another process's table.
		ns, err := os.Readlink(filepath.Join(filepath.Dir(table), "ns", "mnt"))
		if err != nil || seen[ns] {
			continue
		}
		seen[ns] = true
		if mountedOn(table, dir) {
			return true, nil
		}
	}
	return false, nil
}

func mountedOn(table, dir string) bool {
	f, err := os.Open(table)
	if err != nil {
		return false
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && fields[4] == dir {
			return true
		}
	}
	return false
}
