package idxd

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/topolet/topolet/topology/device"
)

// queue is a work queue.
type queue struct {
	of accelerator
	// name is that of its directory, "wq<accelerator>.<index>".
	name, index string
}

// file returns the path of a file of the queue.
func (q queue) file(name string) string { return q.of.dir + q.name + "/" + name }

// device returns the device of the queue. A queue that is not used is as it should be,
// and nobody's: the driver disables it and forgets its type together.
func (q queue) device() (d device.Device, used bool, err error) {
	state, stateErr := q.of.host.ReadError(q.file("state"))
	switch {
	case state == "disabled":
		return d, false, nil
	case device.Resetting(stateErr):
	case stateErr != nil:
		return d, false, stateErr
	case state != "enabled":
		return d, false, fmt.Errorf("state is %q", device.Shorten(state))
	}
	kind, err := q.text("type", "user", "kernel", "none")
	if err != nil || kind == "none" {
		return d, false, err
	}

	f := q.of.function
	d = q.of.host.Of(q.of.name, f, device.Kernel)
	d.Name = device.NameOf(q.of.name, f.Address, "wq"+q.index)
	d.Driver = native
	d.Use = device.Use{Owner: f.Address.String(), Part: "wq" + q.index}
	d.Set("model", device.Text(q.of.models[device.ID(f)]))
	d.Set("wqType", device.Text(kind))
	if err := q.configuration(&d); err != nil {
		return d, false, err
	}
	if err := q.surroundings(&d); err != nil {
		return d, false, err
	}
	if device.Resetting(stateErr) {
		d.Taint(device.InReset, "queue")
	}
	if kind == "kernel" {
		d.Taint(device.Unmanaged, "")
	} else {
		q.node(&d)
	}
	return d, true, nil
}

// configuration sets what the queue's own files say.
func (q queue) configuration(d *device.Device) error {
	mode, err := q.text("mode", "dedicated", "shared")
	if err != nil {
		return err
	}
	d.Set("wqMode", device.Text(mode))
	if mode == "shared" {
		d.Shared = true
		d.Capacities = []device.Capacity{device.Shares(cmp.Or(q.of.Shares, defaultShares))}
	}
	name, err := q.text("name")
	if err != nil {
		return err
	}
	d.Set("wqName", device.Text(name))
	block, err := q.text("block_on_fault", "0", "1")
	if err != nil {
		return err
	}
	d.Set("blockOnFault", device.Flag(block == "1"))
	for _, number := range []struct {
		file, attribute string
		least           int64
		optional        bool
	}{
		{file: "group_id", attribute: "wqGroup"}, // -1 is for a queue in no group
		{file: "size", attribute: "wqSize", least: 1},
		{file: "priority", attribute: "wqPriority"},
		{file: "threshold", attribute: "wqThreshold"},
		{file: "max_transfer_size", attribute: "maxTransferSize", least: 1, optional: true}, // bytes
		{file: "max_batch_size", attribute: "maxBatchSize", least: 1, optional: true},       // descriptors; not for IAA
	} {
		v, ok := q.of.host.Int(q.file(number.file))
		switch {
		case ok && v >= number.least:
			d.Set(number.attribute, device.Number(v))
		case !number.optional:
			return fmt.Errorf("%s is no number of at least %d", number.file, number.least)
		}
	}
	return nil
}

// surroundings sets what the queue has from its place, its group and its accelerator.
func (q queue) surroundings(d *device.Device) error {
	index, err := strconv.ParseInt(q.index, 10, 32)
	if err != nil {
		return err
	}
	d.Set("wqIndex", device.Number(index))
	group, _ := d.Attributes["wqGroup"].AsNumber()
	file := fmt.Sprintf("group%s.%d/engines", q.of.number, group)
	list, _ := q.of.host.Read(q.of.dir + file)
	engines := strings.Fields(list)
	isOther := func(name string) bool { return !strings.HasPrefix(name, "engine"+q.of.number+".") }
	// A queue without engines would keep what it is given for ever.
	if len(engines) == 0 || slices.ContainsFunc(engines, isOther) {
		return fmt.Errorf("%s lists no engines", file)
	}
	d.Set("wqEngines", device.Number(int64(len(engines))))
	version, _ := q.of.host.Read(q.of.dir + "version")
	if _, err := strconv.ParseUint(version, 0, 32); err != nil {
		return fmt.Errorf("the version of the accelerator is %q", device.Shorten(version))
	}
	d.Set("deviceVersion", device.Text(version))
	return nil
}

// text reads a file that must not be empty, and if values are given holds one of them.
func (q queue) text(file string, values ...string) (string, error) {
	text, err := q.of.host.ReadError(q.file(file))
	if err != nil {
		return "", err
	}
	text = device.Shorten(text)
	if text == "" || len(values) > 0 && !slices.Contains(values, text) {
		return "", fmt.Errorf("%s is %q", file, text)
	}
	return text, nil
}

// node adds the node of a queue of type user, and the link to it.
func (q queue) node(d *device.Device) {
	// The kernel writes "!" for the "/" in the name of the device, dsa/wq0.0.
	n, ok := q.of.host.Node(q.file(q.of.prefix+"!"+q.name), false)
	if !ok {
		d.Taint(device.DriverLost, "no-node")
		return
	}
	d.Nodes = []device.Node{n}
	d.Links = []device.Link{{
		Path:   fmt.Sprintf("/dev/char/%d:%d", n.Major, n.Minor),
		Target: "../" + strings.TrimPrefix(n.Path, "/dev/"),
		Role:   CharLink,
	}}
}
