package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/gpu"
)

// gpuMemoryName is the file in the state folder that says how much local memory GPUs have
// whose drivers tell it only to who opens a card's node. That is done by topolet probe, and
// topolet run reads the file. It holds for one run of the machine.
const gpuMemoryName = "gpu-memory.json"

const gpuMemoryVersion = 1

// gpuMemory is the content of that file.
type gpuMemory struct {
	Version int       `json:"version"`
	BootID  string    `json:"bootID"`
	Cards   []gpuCard `json:"cards"`
}

// gpuCard is the answer of a card's driver.
type gpuCard struct {
	// Address is the function's, as the kernel prints it.
	Address string `json:"address"`
	// ID is vendor and device, as lspci prints them: "8086:e20b".
	ID string `json:"id"`
	// Driver is the one that answered.
	Driver string `json:"driver"`
	// Node is what was opened, and its numbers. They tell people: drivers number cards anew
	// when they are bound, and the card at an address keeps its memory.
	Node  string `json:"node"`
	Major int64  `json:"major"`
	Minor int64  `json:"minor"`
	// Bytes is its local memory; 0 where it has none.
	Bytes uint64 `json:"bytes"`
}

func gpuCardOf(f topology.PCIFunction, card device.Node, bytes uint64) gpuCard {
	return gpuCard{
		Address: f.Address.String(), ID: fmt.Sprintf("%04x:%04x", f.Vendor, f.Device), Driver: f.Driver,
		Node: card.Path, Major: card.Major, Minor: card.Minor, Bytes: bytes,
	}
}

// gpuMemoryError says why an answer cannot be had from the file, and what to do.
type gpuMemoryError struct{ Path, Reason string }

func (e *gpuMemoryError) Error() string {
	return fmt.Sprintf("file %s: %s: run topolet probe and then start topolet anew; a new pod of the chart does both if gpuMemory is true", e.Path, e.Reason)
}

// savedGPUMemory answers what the drivers of cards answered earlier in this run of the
// machine. It is safe for concurrent use.
type savedGPUMemory struct {
	path  string
	cards map[string]gpuCard
}

var _ gpu.MemoryQuery = (*savedGPUMemory)(nil)

// gpuMemoryFor reads the file if the configuration has GPUs. Without them nobody is interested
// in one that an earlier installation has left.
func gpuMemoryFor(config v1alpha1.Configuration, stateDir string, host fs.FS) (gpu.MemoryQuery, error) {
	if !slices.ContainsFunc(config.Devices, func(f v1alpha1.DeviceFamily) bool { return f.Family == "gpu" }) {
		return nil, nil
	}
	return loadGPUMemory(stateDir, host)
}

// loadGPUMemory reads the file of a state folder. Without one it returns nil: nobody wanted
// cards to be asked. A file that cannot be used, or is of another run of the machine, is an
// error, a [*gpuMemoryError] unless it cannot be read.
func loadGPUMemory(stateDir string, host fs.FS) (gpu.MemoryQuery, error) {
	path := filepath.Join(stateDir, gpuMemoryName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read how much memory GPUs have: %w", err)
	}
	boot, _ := topology.NewFiles(host).Read(bootIDFile)
	var content gpuMemory
	switch err := json.Unmarshal(data, &content); {
	case err != nil:
		return nil, &gpuMemoryError{path, err.Error()}
	case content.Version != gpuMemoryVersion:
		return nil, &gpuMemoryError{path, fmt.Sprintf("field version is %d, this topolet reads version %d", content.Version, gpuMemoryVersion)}
	case boot == "" || content.BootID != boot:
		return nil, &gpuMemoryError{path, fmt.Sprintf("field bootID is %q, that of this run of the machine is %q", content.BootID, boot)}
	}
	saved := &savedGPUMemory{path, map[string]gpuCard{}}
	for i, card := range content.Cards {
		address, err := topology.ParsePCIAddress(card.Address)
		if err != nil {
			return nil, &gpuMemoryError{path, fmt.Sprintf("field cards[%d].address: %v", i, err)}
		}
		if _, twice := saved.cards[address.String()]; twice {
			return nil, &gpuMemoryError{path, fmt.Sprintf("field cards[%d].address is %s, which another card has", i, address)}
		}
		saved.cards[address.String()] = card
	}
	return saved, nil
}

// LocalMemory implements [gpu.MemoryQuery]. Nothing is known of virtual functions, whose
// memory may change at any time, and that is no error. What is not known of a card is a
// [*gpuMemoryError].
func (s *savedGPUMemory) LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error) {
	if f.PhysicalFunction != topology.None {
		return 0, nil
	}
	was, known := s.cards[f.Address.String()]
	now := gpuCardOf(f, card, was.Bytes)
	switch {
	case !known:
		return 0, &gpuMemoryError{s.path, fmt.Sprintf("no answer of %s (%s): it came later, or did not answer", now.Node, now.Driver)}
	case was.Driver != now.Driver:
		return 0, &gpuMemoryError{s.path, fmt.Sprintf("the driver of %s was %q, now it is %q", was.Address, was.Driver, now.Driver)}
	case was.ID != now.ID:
		return 0, &gpuMemoryError{s.path, fmt.Sprintf("%s was a card %q, now it is %q", was.Address, was.ID, now.ID)}
	}
	return was.Bytes, nil
}

// saveGPUMemory replaces the file of a state folder, which it makes if there is none. The
// error is an [*allocator.SaveError].
func saveGPUMemory(stateDir string, content gpuMemory) error {
	path := filepath.Join(stateDir, gpuMemoryName)
	data, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return &allocator.SaveError{Path: path, Err: err}
	}
	return allocator.ReplaceFile(path, append(data, '\n'))
}
