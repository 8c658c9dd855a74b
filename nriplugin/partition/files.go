package partition

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/topolet/topolet/topology"
)

// The files of a cgroup's cpuset.
const (
	cpusFile      = "cpuset.cpus"
	effectiveFile = "cpuset.cpus.effective"
	// exclusiveFile is what the cgroup may pass down to partitions, or have as one.
	exclusiveFile = "cpuset.cpus.exclusive"
	// grantedFile is how much of that its parents have for it; of a partition, its CPUs.
	grantedFile = "cpuset.cpus.exclusive.effective"
	stateFile   = "cpuset.cpus.partition"
)

const member = "member"

// maxFile bounds what is read, in bytes: the longest list of topology.MaxCPUs CPUs
// has half of them, each with up to five digits and a comma.
const maxFile = topology.MaxCPUs / 2 * 6

// maxDepth bounds how deep a hierarchy is followed, in cgroups below its root.
const maxDepth = 64

// files are those of a cgroup hierarchy.
type files interface {
	// read returns a file's content without white space around it. Where there is no
	// such cgroup or file, that is fs.ErrNotExist.
	read(cgroup, file string) (string, error)
	// write writes in one piece, as the kernel wants it.
	write(cgroup, file, value string) error
	// children are the paths of the cgroups right in this one.
	children(cgroup string) ([]string, error)
	exists(cgroup string) (bool, error)
	// online are the CPUs that the kernel runs on.
	online() (topology.CPUSet, error)
}

// mounted are the files below the folder of a mount: no link leads out of it.
type mounted struct{ root *os.Root }

func (m mounted) read(cgroup, file string) (string, error) {
	f, err := m.root.Open(path.Join(cgroup, file))
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("longer than %d bytes", maxFile)
	}
	return strings.TrimSpace(string(data)), gone(err)
}

func (m mounted) write(cgroup, file, value string) error {
	f, err := m.root.OpenFile(path.Join(cgroup, file), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	// The newline is what makes an empty value reach the kernel.
	_, err = f.WriteString(value + "\n")
	return gone(errors.Join(err, f.Close()))
}

// gone gives the error of a cgroup that was removed while its file was open the same
// name as that of one that was removed before.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (m mounted) children(cgroup string) ([]string, error) {
	f, err := m.root.Open(cgroup)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, err := f.ReadDir(-1)
	var found []string
	for _, e := range entries {
		if e.IsDir() {
			found = append(found, path.Join(cgroup, e.Name()))
		}
	}
	return found, gone(err)
}

func (m mounted) exists(cgroup string) (bool, error) {
	_, err := m.root.Lstat(cgroup)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// onlineFile is the same in every container.
const onlineFile = "/sys/devices/system/cpu/online"

func (mounted) online() (topology.CPUSet, error) {
	data, err := os.ReadFile(onlineFile)
	if err != nil {
		return topology.CPUSet{}, fmt.Errorf("find out which CPUs are online: %w", err)
	}
	cpus, err := topology.ParseCPUSet(string(data))
	if err != nil {
		return cpus, fmt.Errorf("%s: %w", onlineFile, err)
	}
	return cpus, nil
}

var errNoCpuset = errors.New("there is no such file")

// absent tells whether there is nothing to be read: no such cgroup, or none with a
// cpuset.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNoCpuset) }

// text reads a file of a cgroup.
func (t *Tree) text(cgroup, file string) (string, error) {
	text, err := t.files.read(cgroup, file)
	if err == nil {
		return text, nil
	}
	failed := &SettingError{Cgroup: cgroup, File: file, Err: err}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", failed
	}
	if there, _ := t.files.exists(cgroup); there {
		failed.Err = errNoCpuset
		failed.Remedy = "switch the cpuset controller on in cgroup.subtree_control of its parent"
	}
	return "", failed
}

// set reads a file with a CPU list.
func (t *Tree) set(cgroup, file string) (topology.CPUSet, error) {
	text, err := t.text(cgroup, file)
	if err != nil {
		return topology.CPUSet{}, err
	}
	cpus, err := topology.ParseCPUSet(text)
	if err != nil {
		err = &SettingError{Cgroup: cgroup, File: file, Err: err, Remedy: "this is no cpuset file of a kernel that topolet knows"}
	}
	return cpus, err
}

// write changes a setting.
func (t *Tree) write(cgroup, file, value string) error {
	err := t.files.write(cgroup, file, value)
	if err == nil {
		return nil
	}
	failed := &SettingError{Cgroup: cgroup, File: file, Value: value, Err: err}
	switch {
	case errors.Is(err, unix.EINVAL) && file == exclusiveFile:
		failed.Remedy = "see which cgroup beside it has one of these CPUs in its " + exclusiveFile + ", or only these in its " + cpusFile
	case errors.Is(err, unix.EROFS), errors.Is(err, fs.ErrPermission):
		failed.Remedy = "let topolet write to the host's cgroups"
	}
	return failed
}

// isPartition tells whether a state is that of a partition that is in force.
func isPartition(state string) bool { return state == string(Root) || state == string(Isolated) }
