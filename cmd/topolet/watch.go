package main

import (
	"context"
	"fmt"
	"io/fs"
	"time"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/topology"
)

// watchInterval is how often the machine is compared with its picture. What is
// published has to follow the machine within seconds.
const watchInterval = 2 * time.Second

// machineWatch notices that the machine changes.
type machineWatch struct {
	host fs.FS
	// signature and machine belong together: the machine was discovered while it
	// had that signature.
	signature string
	machine   *topology.Machine
}

// newMachineWatch discovers the machine for the first time.
func newMachineWatch(host fs.FS) (*machineWatch, error) {
	w := &machineWatch{host: host}
	if _, err := w.look(); err != nil {
		return nil, err
	}
	if w.machine == nil {
		return nil, fmt.Errorf("discover the machine: its CPUs or PCI functions change all the time")
	}
	return w, nil
}

// look discovers the machine anew if it has changed, and reports whether it did.
// A machine that changes during discovery is looked at again, a few times.
func (w *machineWatch) look() (changed bool, err error) {
	for range 3 {
		before, err := topology.Signature(w.host)
		if err != nil {
			return false, err
		}
		if w.machine != nil && before == w.signature {
			return false, nil
		}
		m, err := topology.Discover(w.host)
		if err != nil {
			return false, fmt.Errorf("discover the machine: %w", err)
		}
		after, err := topology.Signature(w.host)
		if err != nil {
			return false, err
		}
		if before == after {
			w.machine, w.signature = m, after
			return true, nil
		}
	}
	return false, nil
}

// run calls changed with each new picture of the machine until the context ends.
// An error is logged when it is another one than before.
func (w *machineWatch) run(ctx context.Context, interval time.Duration, changed func(*topology.Machine) error) {
	logger := klog.FromContext(ctx)
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		before := w.machine
		isNew, err := w.look()
		if err == nil && isNew {
			logger.Info("The machine has changed", "onlineCPUs", w.machine.Online.String(), "onlineCPUsBefore", before.Online.String(),
				"pciFunctions", len(w.machine.PCI.Functions), "pciFunctionsBefore", len(before.PCI.Functions))
			err = changed(w.machine)
		}
		if err == nil {
			said = ""
		} else if err.Error() != said {
			said = err.Error()
			logger.Error(err, "The picture of the machine is out of date")
		}
	}
}
