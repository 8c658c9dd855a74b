package devicetest

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/topolet/topolet/topology"
)

// Kernel makes a host answer to writes as Linux does: with the same errors, and with the
// files, links and functions that appear and vanish. It knows the settings that topolet
// writes and no others. What it remembers beside the files on disk is which drivers are
// loaded and what a process of the host holds open.
//
//	kernel := devicetest.NewKernel(host)
//	kernel.Load(devicetest.Driver{Name: "i915", IDs: []int{0x808656c0}, Probe: func(f devicetest.Function) error {
//		host.Char(f.Path, "drm/card1", "226:1", "dri/card1")
//		return nil
//	}})
//	err := kernel.Write("/sys/bus/pci/drivers/i915/unbind", "0000:3a:00.0")
type Kernel struct {
	*Host
	// root is the host's folder, with links resolved.
	root string

	// mu guards what is below and the tree on disk; a write that blocks lets go of it.
	mu       sync.Mutex
	journal  []Entry
	refusals []refusal
	drivers  []Driver
	// held are the IOMMU groups that a process has open, until the channel is closed.
	held map[int]chan struct{}
	// locked are the functions, by address, whose lock a write in the kernel has.
	locked map[string]chan struct{}
	writes sync.WaitGroup
}

// Driver is a PCI driver that is loaded.
type Driver struct {
	Name string
	// IDs are the functions that it is for: vendor and device in one number, as
	// [device.ID] tells them.
	IDs []int
	// VFs says that it can make virtual functions.
	VFs bool
	// Probe puts on the host what the driver shows of a function that it is bound to. An
	// error, which is one of syscall, means that it is not bound. Probe must not write to
	// the kernel. There is nothing for the way back: in the directory of a function
	// without a driver, only the files of the PCI core are left.
	Probe func(Function) error
}

// Entry is a write, as it was asked for.
type Entry struct {
	Path, Data string
	// Err is a syscall.Errno, [ErrBlocked] or nil.
	Err error
}

// ErrBlocked is the error in the journal of a write that has not returned.
var ErrBlocked = errors.New("in the kernel")

type refusal struct {
	which func(n int, path, data string) bool
	errno syscall.Errno
}

// NewKernel returns the kernel of a host. Of its drivers, only those for vfio are loaded
// that the host has a directory of; see [Kernel.Load]. At the end of the test nothing is
// held open any more.
func NewKernel(h *Host) *Kernel {
	h.t.Helper()
	root, err := filepath.EvalSymlinks(h.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	k := &Kernel{Host: h, root: root, held: map[int]chan struct{}{}, locked: map[string]chan struct{}{}}
	k.mkdir("/sys/class/vfio")
	h.t.Cleanup(func() {
		k.mu.Lock()
		for group, ch := range k.held {
			delete(k.held, group)
			close(ch)
		}
		k.mu.Unlock()
		k.writes.Wait()
	})
	return k
}

// Load loads a driver, as modprobe does: it is bound to the functions that are for it and
// have no driver.
func (k *Kernel) Load(d Driver) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.driver(d.Name)
	k.drivers = append(k.drivers, d)
	for _, address := range k.entries("/sys/bus/pci/devices") {
		if f, ok := k.function(address); ok && f.Driver == "" && k.matches(d.Name, f) {
			_ = k.probe(d.Name, f) // a function that it cannot serve stays without
		}
	}
}

// Refuse makes the kernel answer those writes with an error that which picks, by their
// number from 1 and by what is written. Such a write changes nothing.
func (k *Kernel) Refuse(which func(n int, path, data string) bool, errno syscall.Errno) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refusals = append(k.refusals, refusal{which, errno})
}

// Nth picks one write for [Kernel.Refuse].
func Nth(want int) func(n int, path, data string) bool {
	return func(n int, _, _ string) bool { return n == want }
}

// Matching picks the writes for [Kernel.Refuse] whose path ends so.
func Matching(suffix string) func(n int, path, data string) bool {
	return func(_ int, path, _ string) bool { return strings.HasSuffix(path, suffix) }
}

// Hold lets a process hold an IOMMU group open until release is called. So long vfio
// drivers do not let go of the group's functions.
func (k *Kernel) Hold(group int) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch := make(chan struct{})
	k.held[group] = ch
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.held[group] == ch {
			delete(k.held, group)
			close(ch)
		}
	}
}

// Journal returns all writes in the order in which they began.
func (k *Kernel) Journal() []Entry {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Entry(nil), k.journal...)
}

// Tree is as of [Host.Tree], between two changes.
func (k *Kernel) Tree() map[string]string {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.Host.Tree()
}

// Write writes to a file by its path on the host, in one piece. The error is that of
// os.File.
func (k *Kernel) Write(name, data string) error {
	k.writes.Add(1)
	defer k.writes.Done()
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.journal)
	k.journal = append(k.journal, Entry{name, data, ErrBlocked})
	err := k.refused(n+1, name, data)
	if err == nil {
		err = k.store(name, data)
	}
	k.journal[n].Err = err
	if err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

func (k *Kernel) refused(n int, name, data string) error {
	for _, r := range k.refusals {
		if r.which(n, name, data) {
			return r.errno
		}
	}
	return nil
}

// store finds out whose file it is.
func (k *Kernel) store(name, data string) error {
	file, err := k.resolve(name)
	if err != nil {
		return err
	}
	if data == "" {
		return nil // sysfs does not ask the driver
	}
	text := strings.TrimSuffix(data, "\n")
	dir, file := path.Dir(file), path.Base(file)
	switch path.Dir(dir) {
	case "/sys/bus/pci/drivers":
		return k.storeDriver(path.Base(dir), file, text)
	case "/sys/bus/dsa/drivers":
		return k.storeDSADriver(path.Base(dir), file, text)
	}
	if f, ok := k.owner(dir); ok {
		return k.storeFunction(f, file, data)
	}
	if f, ok := k.owner(path.Dir(dir)); ok && path.Base(dir) == "qat" {
		return k.storeQAT(f, file, text)
	}
	if d, ok := k.dsaDevice(dir); ok {
		return k.storeDSA(d, dir, file, text)
	}
	return syscall.EACCES
}

// owner returns the function whose directory it is, when its lock is free.
func (k *Kernel) owner(dir string) (Function, bool) {
	f, ok := k.settled(path.Base(dir))
	return f, ok && f.Path == dir
}

// resolve returns the path of a file without links.
func (k *Kernel) resolve(name string) (string, error) {
	file, err := filepath.EvalSymlinks(k.at(name))
	if err != nil {
		return "", syscall.ENOENT
	}
	if info, err := os.Stat(file); err != nil || info.IsDir() {
		return "", syscall.EISDIR
	}
	return k.onHost(file)
}

// onHost is the host's own path of a file in its folder.
func (k *Kernel) onHost(file string) (string, error) {
	inside, err := filepath.Rel(k.root, file)
	if err != nil || !filepath.IsLocal(inside) {
		return "", syscall.ENOENT
	}
	return "/" + filepath.ToSlash(inside), nil
}

// settled returns a function of that address once no write has its lock.
func (k *Kernel) settled(address string) (Function, bool) {
	for {
		ch, ok := k.locked[address]
		if !ok {
			return k.function(address)
		}
		k.mu.Unlock()
		<-ch
		k.mu.Lock()
	}
}

// function reads what the host has at an address.
func (k *Kernel) function(address string) (Function, bool) {
	if _, err := topology.ParsePCIAddress(address); err != nil {
		return Function{}, false
	}
	dir, err := filepath.EvalSymlinks(k.at("/sys/bus/pci/devices/" + address))
	if err != nil {
		return Function{}, false
	}
	name, err := k.onHost(dir)
	if err != nil {
		return Function{}, false
	}
	return Function{
		Path:   name,
		Vendor: uint16(k.number(name+"/vendor", 0)), //nolint:gosec // it was written from such a number
		Device: uint16(k.number(name+"/device", 0)), //nolint:gosec // it was written from such a number
		Class:  uint32(k.number(name+"/class", 0)),  //nolint:gosec // it was written from such a number
		Node:   k.number(name+"/numa_node", -1),
		Group:  number(path.Base(k.link(name+"/iommu_group")), -1),
		Driver: base(k.link(name + "/driver")),
	}, true
}

// id is as of [device.ID].
func (f Function) id() int { return int(f.Vendor)<<16 | int(f.Device) }

func (k *Kernel) exists(name string) bool {
	_, err := os.Lstat(k.at(name))
	return err == nil
}

// get returns the content of a file without white space around it; empty if there is none.
func (k *Kernel) get(name string) string {
	content, _ := os.ReadFile(k.at(name))
	return strings.TrimSpace(string(content))
}

// set gives a file other content in one piece: somebody may be reading it.
func (k *Kernel) set(name, content string) {
	k.t.Helper()
	k.File("/.new", content)
	if err := os.Rename(k.at("/.new"), k.at(name)); err != nil {
		k.t.Error(err)
	}
}

func (k *Kernel) number(name string, otherwise int) int { return number(k.get(name), otherwise) }

func number(text string, otherwise int) int {
	if n, err := strconv.ParseInt(text, 0, 64); err == nil {
		return int(n)
	}
	return otherwise
}

func (k *Kernel) link(name string) string {
	target, _ := os.Readlink(k.at(name))
	return filepath.ToSlash(target)
}

// base is path.Base, but of nothing it is nothing.
func base(name string) string {
	if name == "" {
		return ""
	}
	return path.Base(name)
}

func (k *Kernel) entries(dir string) []string {
	entries, _ := os.ReadDir(k.at(dir))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func (k *Kernel) mkdir(name string) {
	k.t.Helper()
	if err := os.MkdirAll(k.at(name), 0o750); err != nil {
		k.t.Fatal(err)
	}
}

// flag reads a truth value as the kernel does: it looks at the first letters only.
func flag(text string) (on bool, err error) {
	text = strings.ToLower(text)
	switch {
	case text == "":
	case strings.Contains("1yt", text[:1]), strings.HasPrefix(text, "on"):
		return true, nil
	case strings.Contains("0nf", text[:1]), strings.HasPrefix(text, "of"):
		return false, nil
	}
	return false, syscall.EINVAL
}

func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
