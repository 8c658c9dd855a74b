package devicetest_test

import (
	"maps"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology/device/devicetest"
)

const (
	function = "/sys/devices/pci0000:6a/0000:6a:01.0"
	dsa      = function + "/dsa0"
	queue    = "/sys/bus/dsa/devices/wq0.0/"
	users    = "/sys/bus/dsa/drivers/user/"
	idxd     = "/sys/bus/dsa/drivers/idxd/"
)

// streaming is a host with a DSA device of two queues, the first of which is enabled, as
// far as changes do not say otherwise, by their path below the device.
func streaming(t *testing.T, changes map[string]string) *devicetest.Kernel {
	t.Helper()
	h := devicetest.New(t)
	k := devicetest.NewKernel(h)
	h.Add(devicetest.Function{Path: function, Vendor: 0x8086, Device: 0x0b25, Class: 0x088000, Group: 110, Driver: "idxd"})
	files := map[string]string{
		"version": "0x100", "max_groups": "4", "max_engines": "4", "max_work_queues_size": "128", "max_transfer_size": "2147483648",
		"max_batch_size": "1024", "max_read_buffers": "96", "read_buffer_limit": "0", "configurable": "1", "pasid_enabled": "1", "state": "enabled",
		"clients": "0", "errors": "0", "cmd_status": "0x0", "cdev_major": "511", "gen_cap": "0x40915f0107",
		"wq0.0/cdev_minor": "0", "wq0.0/dsa!wq0.0/dev": "511:0", "wq0.0/dsa!wq0.0/uevent": "DEVNAME=dsa/wq0.0",
		"group0.0/engines": "engine0.0", "group0.0/work_queues": "wq0.0", "engine0.0/group_id": "0",
		"group0.0/read_buffers_allowed": "8", "group0.0/read_buffers_reserved": "0", "group0.0/use_read_buffer_limit": "0",
		"group0.0/traffic_class_a": "1", "group0.0/traffic_class_b": "1",
		"group0.1/engines": "", "group0.1/work_queues": "", "engine0.1/group_id": "-1", "group0.1/read_buffers_reserved": "90",
	}
	for dir, fields := range map[string]map[string]string{
		"wq0.0/": {"state": "enabled", "group_id": "0", "mode": "dedicated", "size": "16", "type": "user", "name": "app1", "driver_name": "user", "priority": "10", "block_on_fault": "1"},
		"wq0.1/": {"state": "disabled", "group_id": "-1", "mode": "shared", "size": "0", "type": "none", "name": "", "driver_name": "", "priority": "0", "block_on_fault": "0"},
	} {
		for file, content := range fields {
			files[dir+file] = content
		}
		maps.Copy(files, map[string]string{
			dir + "threshold": "0", dir + "clients": "0", dir + "max_transfer_size": "2097152", dir + "max_batch_size": "32",
			dir + "ats_disable": "0", dir + "prs_disable": "0", dir + "op_config": "ff",
		})
	}
	maps.Copy(files, changes)
	h.Files(dsa, files)
	h.Link("/sys/bus/dsa/devices/dsa0", dsa)
	for _, part := range []string{"wq0.0", "wq0.1", "engine0.0", "engine0.1", "group0.0", "group0.1"} {
		h.Link("/sys/bus/dsa/devices/"+part, dsa+"/"+part)
	}
	for _, driver := range []string{"idxd", "user", "dmaengine"} {
		h.Files("/sys/bus/dsa/drivers/"+driver, map[string]string{"bind": "", "unbind": ""})
	}
	return k
}

func TestSettingsOfDSA(t *testing.T) {
	disabled := map[string]string{"wq0.0/state": "disabled", "state": "disabled"}
	with := func(changes map[string]string) map[string]string {
		all := maps.Clone(disabled)
		maps.Copy(all, changes)
		return all
	}
	fixed := map[string]string{"configurable": "0"}
	for name, test := range map[string]struct {
		changes    map[string]string
		file, data string
		want       error
		reads      string
	}{
		"group of a disabled queue":   {map[string]string{"wq0.0/state": "disabled"}, "wq0.0/group_id", "1", nil, "1"},
		"group":                       {disabled, "wq0.0/group_id", "1", nil, "1"},
		"no group":                    {disabled, "wq0.0/group_id", "-1", nil, "-1"},
		"a group beyond the last":     {disabled, "wq0.0/group_id", "4", syscall.EINVAL, "0"},
		"group while enabled":         {nil, "wq0.0/group_id", "1", syscall.EPERM, "0"},
		"group of a fixed device":     {with(fixed), "wq0.0/group_id", "1", syscall.EPERM, "0"},
		"group that is no number":     {disabled, "wq0.0/group_id", "one", syscall.EINVAL, "0"},
		"mode":                        {disabled, "wq0.0/mode", "shared", nil, "shared"},
		"another mode":                {disabled, "wq0.0/mode", "both", syscall.EINVAL, "dedicated"},
		"mode while enabled":          {nil, "wq0.0/mode", "shared", syscall.EPERM, "dedicated"},
		"size":                        {disabled, "wq0.0/size", "128", nil, "128"},
		"sizes above the most":        {with(map[string]string{"wq0.1/size": "100"}), "wq0.0/size", "29", syscall.EINVAL, "16"},
		"size, device enabled":        {map[string]string{"wq0.0/state": "disabled"}, "wq0.0/size", "8", syscall.EPERM, "16"},
		"priority":                    {disabled, "wq0.0/priority", "15", nil, "15"},
		"too high a priority":         {disabled, "wq0.0/priority", "16", syscall.EINVAL, "10"},
		"threshold":                   {with(map[string]string{"wq0.0/mode": "shared"}), "wq0.0/threshold", "16", nil, "16"},
		"threshold above the size":    {with(map[string]string{"wq0.0/mode": "shared"}), "wq0.0/threshold", "17", syscall.EINVAL, "0"},
		"threshold of nothing":        {with(map[string]string{"wq0.0/mode": "shared"}), "wq0.0/threshold", "0", syscall.EINVAL, "0"},
		"threshold, dedicated":        {disabled, "wq0.0/threshold", "8", syscall.EINVAL, "0"},
		"threshold while enabled":     {nil, "wq0.0/threshold", "8", syscall.ENXIO, "0"},
		"fault":                       {disabled, "wq0.0/block_on_fault", "0", nil, "0"},
		"fault while enabled":         {nil, "wq0.0/block_on_fault", "0", syscall.ENXIO, "1"},
		"fault without requests":      {with(map[string]string{"wq0.0/prs_disable": "1"}), "wq0.0/block_on_fault", "1", syscall.EOPNOTSUPP, "1"},
		"fault, unsupported":          {with(map[string]string{"gen_cap": "0x6"}), "wq0.0/block_on_fault", "0", syscall.EOPNOTSUPP, "1"},
		"no requests":                 {disabled, "wq0.0/prs_disable", "1", nil, "1"},
		"type":                        {disabled, "wq0.0/type", "kernel", nil, "kernel"},
		"another type":                {disabled, "wq0.0/type", "guest", syscall.EINVAL, "user"},
		"type while enabled":          {nil, "wq0.0/type", "kernel", syscall.EPERM, "user"},
		"name":                        {disabled, "wq0.0/name", "dpdk_1\n", nil, "dpdk_1"},
		"name while enabled":          {nil, "wq0.0/name", "dpdk_1", syscall.EPERM, "app1"},
		"driver":                      {disabled, "wq0.0/driver_name", "crypto", nil, "crypto"},
		"transfers":                   {disabled, "wq0.0/max_transfer_size", "3000000", nil, "4194304"},
		"transfers of a power of two": {disabled, "wq0.0/max_transfer_size", "4194304", nil, "4194304"},
		"transfers of nothing":        {disabled, "wq0.0/max_transfer_size", "0", syscall.EINVAL, "2097152"},
		"transfers above the most":    {disabled, "wq0.0/max_transfer_size", "2147483649", syscall.EINVAL, "2097152"},
		"batches":                     {disabled, "wq0.0/max_batch_size", "33", nil, "64"},
		"batches above the most":      {disabled, "wq0.0/max_batch_size", "2000", syscall.EINVAL, "32"},
		"translation":                 {disabled, "wq0.0/ats_disable", "y", nil, "1"},
		"translation while enabled":   {nil, "wq0.0/ats_disable", "1", syscall.EPERM, "0"},
		"operations":                  {disabled, "wq0.0/op_config", "01", nil, "01"},
		"a field that tells":          {disabled, "wq0.0/clients", "0", syscall.EACCES, "0"},
		"engine":                      {disabled, "engine0.1/group_id", "1", nil, "1"},
		"engine of a fixed device":    {fixed, "engine0.1/group_id", "1", syscall.EPERM, "-1"},
		"buffers":                     {disabled, "group0.0/read_buffers_allowed", "6", nil, "6"},
		"too few for the engines":     {disabled, "group0.0/read_buffers_allowed", "3", syscall.EINVAL, "8"},
		"more than others leave":      {disabled, "group0.0/read_buffers_allowed", "7", syscall.EINVAL, "8"},
		"buffers while enabled":       {nil, "group0.0/read_buffers_allowed", "6", syscall.EPERM, "8"},
		"reserved buffers":            {disabled, "group0.0/read_buffers_reserved", "4", nil, "4"},
		"a limit that is not set":     {disabled, "group0.0/use_read_buffer_limit", "1", syscall.EPERM, "0"},
		"a limit that is set":         {with(map[string]string{"read_buffer_limit": "9"}), "group0.0/use_read_buffer_limit", "1", nil, "1"},
		"class of an old device":      {disabled, "group0.0/traffic_class_a", "2", syscall.EPERM, "1"},
		"class of a new device":       {with(map[string]string{"version": "0x300"}), "group0.0/traffic_class_b", "2", nil, "2"},
		"too high a class":            {with(map[string]string{"version": "0x300"}), "group0.0/traffic_class_b", "8", syscall.EINVAL, "1"},
		"limit":                       {disabled, "read_buffer_limit", "96", nil, "96"},
		"limit above the most":        {disabled, "read_buffer_limit", "97", syscall.EINVAL, "0"},
		"limit while enabled":         {nil, "read_buffer_limit", "9", syscall.EPERM, "0"},
		"log":                         {with(map[string]string{"event_log_size": "64"}), "event_log_size", "128", nil, "128"},
		"too short a log":             {with(map[string]string{"event_log_size": "64"}), "event_log_size", "63", syscall.EINVAL, "64"},
		"status is cleared":           {map[string]string{"cmd_status": "0x80030000"}, "cmd_status", "1", nil, "0x0"},
		"state":                       {nil, "state", "disabled", syscall.EACCES, "enabled"},
	} {
		t.Run(name, func(t *testing.T) {
			k := streaming(t, test.changes)
			write(t, k, step{dsa + "/" + test.file, test.data, test.want})
			if got := k.Tree()[dsa+"/"+test.file]; got != test.reads {
				t.Errorf("it reads %q, want %q", got, test.reads)
			}
		})
	}
}

func TestSettingsOfAQueueThatChangeOthers(t *testing.T) {
	k := streaming(t, map[string]string{"state": "disabled", "wq0.0/state": "disabled", "wq0.0/mode": "shared", "wq0.0/threshold": "9"})
	write(t, k, step{queue + "mode", "dedicated", nil}, step{queue + "type", "user", nil})
	want(t, k, map[string]string{dsa + "/wq0.0/threshold": "0", dsa + "/wq0.0/name": "app1"})
	write(t, k, step{queue + "type", "kernel", nil}, step{queue + "prs_disable", "1", nil}, step{queue + "group_id", "1", nil},
		step{dsa + "/engine0.1/group_id", "1", nil})
	tree := k.Tree()
	got := []string{
		tree[dsa+"/wq0.0/name"], tree[dsa+"/wq0.0/block_on_fault"], tree[dsa+"/group0.0/work_queues"], tree[dsa+"/group0.1/work_queues"], tree[dsa+"/group0.1/engines"],
	}
	if diff := cmp.Diff([]string{"", "0", "", "wq0.0", "engine0.1"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestBatchesAndBuffersAreNotOfIAA(t *testing.T) {
	k := streaming(t, nil)
	h := k.Host
	h.Files(function+"/iax1", map[string]string{"state": "disabled", "configurable": "1", "max_groups": "4", "max_batch_size": "9", "read_buffer_limit": "0"})
	h.Files(function+"/iax1/wq1.0", map[string]string{"state": "disabled", "max_batch_size": "1"})
	h.Files(function+"/iax1/group1.0", map[string]string{"read_buffers_allowed": "0"})
	write(t, k,
		step{function + "/iax1/wq1.0/max_batch_size", "2", syscall.EOPNOTSUPP},
		step{function + "/iax1/group1.0/read_buffers_allowed", "8", syscall.EOPNOTSUPP},
		step{function + "/iax1/read_buffer_limit", "8", syscall.EOPNOTSUPP},
	)
}

func TestADisabledQueueLosesItsSettings(t *testing.T) {
	k := streaming(t, map[string]string{"wq0.0/max_transfer_size": "4096", "wq0.0/max_batch_size": "1", "wq0.0/ats_disable": "1"})
	write(t, k, step{"/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0", syscall.ENODEV}, step{users + "unbind", "wq0.0", nil})
	tree := k.Tree()
	got := map[string]string{}
	for _, file := range []string{"state", "group_id", "mode", "size", "type", "name", "priority", "block_on_fault", "threshold", "ats_disable", "max_transfer_size", "max_batch_size"} {
		got[file] = tree[dsa+"/wq0.0/"+file]
	}
	wanted := map[string]string{
		"state": "disabled", "group_id": "0", "mode": "shared", "size": "16", "type": "none", "name": "", "priority": "0",
		"block_on_fault": "0", "threshold": "0", "ats_disable": "0", "max_transfer_size": "2097152", "max_batch_size": "32",
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Error(diff)
	}
	want(t, k, map[string]string{dsa + "/wq0.0/dsa!wq0.0/dev": "", dsa + "/wq0.0/cdev_minor": "", dsa + "/state": "enabled"})
	write(t, k, step{users + "unbind", "wq0.0", syscall.ENODEV})
}

func TestADisabledDeviceLosesItsLayout(t *testing.T) {
	k := streaming(t, nil)
	write(t, k, step{idxd + "unbind", "dsa0", nil})
	want(t, k, map[string]string{
		dsa + "/state": "disabled", dsa + "/wq0.0/state": "disabled", dsa + "/wq0.0/size": "0", dsa + "/wq0.0/group_id": "-1", dsa + "/wq0.0/type": "none",
		dsa + "/engine0.0/group_id": "-1", dsa + "/group0.0/read_buffers_allowed": "0", dsa + "/wq0.0/dsa!wq0.0/dev": "",
	})
	if tree := k.Tree(); tree[dsa+"/group0.0/work_queues"] != "" {
		t.Errorf("group has queues %q", tree[dsa+"/group0.0/work_queues"])
	}
	write(t, k, step{idxd + "unbind", "dsa0", syscall.ENODEV})
}

func TestAFixedDeviceKeepsItsLayout(t *testing.T) {
	k := streaming(t, map[string]string{"configurable": "0"})
	write(t, k, step{idxd + "unbind", "dsa0", nil})
	want(t, k, map[string]string{dsa + "/state": "disabled", dsa + "/wq0.0/state": "disabled", dsa + "/wq0.0/size": "16", dsa + "/engine0.0/group_id": "0"})
	write(t, k, step{idxd + "bind", "dsa0", nil})
	want(t, k, map[string]string{dsa + "/state": "enabled"})
}

func TestBindingDSA(t *testing.T) {
	off := map[string]string{"wq0.0/state": "disabled"}
	with := func(changes ...string) map[string]string {
		all := maps.Clone(off)
		for i := 0; i < len(changes); i += 2 {
			all[changes[i]] = changes[i+1]
		}
		return all
	}
	for name, test := range map[string]struct {
		changes      map[string]string
		driver, what string
		want         error
		status       string
	}{
		"an enabled device":                 {nil, "idxd", "dsa0", syscall.EBUSY, "0x0"},
		"an enabled queue":                  {nil, "user", "wq0.0", syscall.EBUSY, "0x0"},
		"a halted device":                   {with("state", "halted"), "idxd", "dsa0", syscall.ENXIO, "0x80000010"},
		"a device":                          {with("state", "disabled", "cmd_status", "0x7"), "idxd", "dsa0", nil, "0x0"},
		"a device without queues":           {with("state", "disabled", "wq0.0/group_id", "-1"), "idxd", "dsa0", syscall.ENXIO, "0x800d0000"},
		"a device without engines":          {with("state", "disabled", "engine0.0/group_id", "-1"), "idxd", "dsa0", syscall.ENXIO, "0x0"},
		"a device with a queue of no size":  {with("state", "disabled", "wq0.0/size", "0"), "idxd", "dsa0", syscall.ENXIO, "0x800e0000"},
		"a device with an unsupported mode": {with("state", "disabled", "wq0.0/mode", "shared", "pasid_enabled", "0"), "idxd", "dsa0", syscall.ENXIO, "0x800c0000"},
		"a queue":                           {off, "user", "wq0.0", nil, "0x0"},
		"a queue to the kernel":             {with("wq0.0/driver_name", "dmaengine"), "dmaengine", "wq0.0", nil, "0x0"},
		"a queue of a disabled device":      {with("state", "disabled"), "user", "wq0.0", syscall.ENXIO, "0x0"},
		"a queue of another driver":         {with("wq0.0/driver_name", "dmaengine"), "user", "wq0.0", syscall.ENODEV, "0x80200000"},
		"a queue of no driver":              {with("wq0.0/driver_name", ""), "user", "wq0.0", syscall.ENODEV, "0x80200000"},
		"a queue without address spaces":    {with("pasid_enabled", "0"), "user", "wq0.0", syscall.EOPNOTSUPP, "0x80110000"},
		"a queue of no group":               {with("wq0.0/group_id", "-1"), "user", "wq0.0", syscall.ENXIO, "0x80030000"},
		"a queue of no name":                {with("wq0.0/name", ""), "user", "wq0.0", syscall.ENXIO, "0x80040000"},
		"a shared queue of no threshold":    {with("wq0.0/mode", "shared"), "user", "wq0.0", syscall.ENXIO, "0x80060000"},
		"a shared queue of the kernel":      {with("wq0.0/mode", "shared", "wq0.0/driver_name", "dmaengine", "pasid_enabled", "0"), "dmaengine", "wq0.0", syscall.ENXIO, "0x80050000"},
		"a queue of no size":                {with("wq0.0/size", "0"), "user", "wq0.0", syscall.EINVAL, "0x800e0000"},
		"a queue to the devices' driver":    {off, "idxd", "wq0.0", syscall.ENODEV, "0x0"},
		"a device to the queues' driver":    {with("state", "disabled"), "user", "dsa0", syscall.ENODEV, "0x0"},
		"a group":                           {off, "user", "group0.0", syscall.ENODEV, "0x0"},
		"nothing":                           {off, "user", "wq9.0", syscall.ENODEV, "0x0"},
		"a path":                            {off, "user", "../devices/wq0.0", syscall.ENODEV, "0x0"},
	} {
		t.Run(name, func(t *testing.T) {
			k := streaming(t, test.changes)
			if test.changes["wq0.0/state"] != "" {
				k.Remove(dsa + "/wq0.0/dsa!wq0.0")
				k.Remove(dsa + "/wq0.0/cdev_minor")
			}
			write(t, k, step{"/sys/bus/dsa/drivers/" + test.driver + "/bind", test.what, test.want})
			want(t, k, map[string]string{dsa + "/cmd_status": test.status})
			tree := k.Tree()
			isQueue := test.what == "wq0.0" && test.driver != "idxd"
			switch {
			case test.want == nil && !isQueue:
				want(t, k, map[string]string{dsa + "/state": "enabled", dsa + "/wq0.0/state": "disabled"})
			case test.want == nil && test.driver == "user":
				want(t, k, map[string]string{dsa + "/wq0.0/state": "enabled", dsa + "/wq0.0/dsa!wq0.0/dev": "511:0", dsa + "/wq0.0/cdev_minor": "0"})
			case test.want == nil:
				want(t, k, map[string]string{dsa + "/wq0.0/state": "enabled", dsa + "/wq0.0/type": "kernel", dsa + "/wq0.0/dsa!wq0.0/dev": ""})
			case isQueue && tree[dsa+"/wq0.0/state"] == "enabled" && test.changes != nil:
				t.Error("the queue is enabled")
			}
		})
	}
}

func TestAQueueThatCannotBeEnabledHasNoType(t *testing.T) {
	k := streaming(t, map[string]string{"wq0.0/state": "disabled", "wq0.0/group_id": "-1"})
	write(t, k, step{users + "bind", "wq0.0", syscall.ENXIO})
	want(t, k, map[string]string{dsa + "/wq0.0/type": "none", dsa + "/wq0.0/name": "app1"})
}

func TestTheNodesOfQueuesAreCountedOn(t *testing.T) {
	k := streaming(t, map[string]string{
		"wq0.1/group_id": "0", "wq0.1/mode": "dedicated", "wq0.1/size": "16", "wq0.1/name": "app2", "wq0.1/driver_name": "user",
	})
	write(t, k, step{users + "bind", "wq0.1", nil})
	want(t, k, map[string]string{dsa + "/wq0.1/dsa!wq0.1/uevent": "MAJOR=511\nMINOR=1\nDEVNAME=dsa/wq0.1", dsa + "/wq0.1/type": "user", dsa + "/wq0.1/cdev_minor": "1"})
}

func TestAnUnboundFunctionHasNoQueues(t *testing.T) {
	k := streaming(t, nil)
	write(t, k, step{drivers + "idxd/unbind", "0000:6a:01.0", nil})
	want(t, k, map[string]string{dsa + "/state": "", "/sys/bus/dsa/devices/wq0.0": "", function + "/vendor": "0x8086"})
}
