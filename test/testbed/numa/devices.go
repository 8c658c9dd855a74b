package numa

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/topolet/topolet/test/testbed/numa/guest"
	"github.com/topolet/topolet/test/testbed/numa/machine"
	"github.com/topolet/topolet/test/testbed/numa/qmp"
)

// plugLimit is how long the guest may take to let a device go or to find it.
// The slot's button alone takes five seconds.
const plugLimit = time.Minute

// Unplug takes a device of the layout out, as the slot's button does, and
// returns when the guest has let it go.
func (m *Machine) Unplug(ctx context.Context, id string) error {
	d, _, err := m.layout.Device(id)
	if err != nil {
		return err
	}
	if d.Kind == machine.NVMe && d.VFs > 0 {
		// In nvme_subsys_unreserve_cntlids, also when its VFs are switched off before.
		return fmt.Errorf("unplug %s: QEMU 10.0 ends when an NVMe function goes that can have VFs: unplug another", id)
	}
	monitor, err := m.monitor(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = monitor.Close() }()
	begin := time.Now()
	if err := monitor.Execute(ctx, "device_del", map[string]string{"id": id}); err != nil {
		return fmt.Errorf("unplug %s: %w", id, err)
	}
	limited, cancel := context.WithTimeout(ctx, plugLimit)
	defer cancel()
	e, err := monitor.Wait(limited, func(e qmp.Event) bool {
		var data struct{ Device string }
		named := json.Unmarshal(e.Data, &data) == nil && data.Device == id
		return named && (e.Name == "DEVICE_DELETED" || e.Name == "DEVICE_UNPLUG_GUEST_ERROR")
	})
	if err != nil {
		return fmt.Errorf("waited %v for the guest to let %s go (DEVICE_DELETED): %w", time.Since(begin).Round(time.Second), id, err)
	}
	if e.Name != "DEVICE_DELETED" {
		return fmt.Errorf("the guest refuses to let %s go", id)
	}
	m.Context.Log.Printf("unplugged %s in %.1fs", id, time.Since(begin).Seconds())
	return nil
}

// Plug puts a device of the layout back where it was, switches its VFs on and
// returns when the guest shows it.
func (m *Machine) Plug(ctx context.Context, id string) error {
	d, address, err := m.layout.Device(id)
	if err != nil {
		return err
	}
	monitor, err := m.monitor(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = monitor.Close() }()
	begin := time.Now()
	if err := monitor.Execute(ctx, "device_add", d.Properties()); err != nil {
		return fmt.Errorf("plug %s: %w", id, err)
	}
	ch := m.Channel()
	err = m.until(ctx, "the guest to find "+id+" at "+address, plugLimit, func(ctx context.Context) error {
		_, err := ch.List(ctx, "/sys/bus/pci/devices/"+address+"/driver")
		if errors.Is(err, fs.ErrNotExist) {
			return errors.New("it has no driver there yet")
		}
		return err
	})
	if err != nil {
		return err
	}
	if d.VFs > 0 {
		if err := vfsOf(d).Enable(address, func(path, content string) error { return ch.Write(ctx, path, content) }); err != nil {
			return err
		}
	}
	m.Context.Log.Printf("plugged %s at %s in %.1fs", id, address, time.Since(begin).Seconds())
	return nil
}

func vfsOf(d machine.Device) guest.VFs {
	return guest.VFs{Count: d.VFs, Idle: d.Kind == machine.NVMe}
}
