package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

// errorCountsName is the file in the state folder that says how many fatal errors functions
// had reported when they were first seen. Without it a new process would take a broken device
// for a sound one. It holds for one run of the machine: the kernel counts from its start.
const errorCountsName = "fatal-errors.json"

const errorCountsVersion = 1

// bootIDFile, below a host's root, is another at each run of the machine.
const bootIDFile = "proc/sys/kernel/random/boot_id"

// errorCounts are the fatal errors that functions had reported when they were first seen, by
// address (Documentation/ABI/testing/sysfs-bus-pci-devices-aer_stats). Those of the zero value
// end with the process.
type errorCounts struct {
	file string
	errorCountsContent
	isSaved bool
}

type errorCountsContent struct {
	Version int               `json:"version"`
	BootID  string            `json:"bootID"`
	Fatal   map[string]uint64 `json:"fatal"`
}

// loadErrorCounts reads the file of a state folder. It returns counts in every case: empty
// ones where there is none of this run of the machine. An error says why a file that is
// there cannot be used; it is replaced.
func loadErrorCounts(stateDir string, host fs.FS) (*errorCounts, error) {
	boot, _ := topology.NewFiles(host).Read(bootIDFile)
	c := &errorCounts{file: filepath.Join(stateDir, errorCountsName)}
	err := c.load()
	if err != nil || c.BootID != boot {
		c.errorCountsContent, c.isSaved = errorCountsContent{Version: errorCountsVersion, BootID: boot}, false
	}
	return c, err
}

func (c *errorCounts) load() error {
	data, err := os.ReadFile(c.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read how many errors devices had reported: %w", err)
	}
	if err := json.Unmarshal(data, &c.errorCountsContent); err != nil {
		return fmt.Errorf("file %s: %w", c.file, err)
	}
	if c.Version != errorCountsVersion {
		return fmt.Errorf("file %s: field version is %d, this topolet reads version %d", c.file, c.Version, errorCountsVersion)
	}
	c.isSaved = true
	return nil
}

// rose reports whether a function has more fatal errors than when it was first seen. A count
// that is smaller started again, as it does when a function is plugged in.
func (c *errorCounts) rose(address string, n uint64) bool {
	before, seen := c.Fatal[address]
	if !seen || n < before {
		if c.Fatal == nil {
			c.Fatal = map[string]uint64{}
		}
		c.Fatal[address], c.isSaved = n, false
		return false
	}
	return n > before
}

// save writes the file if there is something new. After an error it is to be tried again.
func (c *errorCounts) save() error {
	if c.isSaved || c.file == "" {
		return nil
	}
	data, err := json.MarshalIndent(c.errorCountsContent, "", "  ")
	if err == nil {
		err = allocator.ReplaceFile(c.file, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("remember how many errors devices had reported: %w", err)
	}
	c.isSaved = true
	return nil
}
