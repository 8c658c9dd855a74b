package inuse_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/inuse"
)

var (
	sata = devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:17.0", Vendor: 0x8086, Device: 0xa352, Class: 0x010601, Group: 3, Driver: "ahci"}
	card = devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0", Vendor: 0x8086, Device: 0x10c9, Class: 0x020000, Group: 4, Driver: "igb"}
)

const (
	sda  = "/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
	eth0 = "/sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0/net/eth0"

	rootOnly = "22 1 0:21 / /sys rw,nosuid shared:2 - sysfs sysfs rw"
	heading  = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
	noSwaps  = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority"
)

// idle is a host that uses neither its disk sda, with a partition, nor its interface eth0.
func idle(t *testing.T) *devicetest.Host {
	h := devicetest.New(t)
	h.Add(sata, devicetest.Bridge("/sys/devices/pci0000:00/0000:00:1c.0", 0), card)
	h.Files(sda, map[string]string{"dev": "8:0", "size": "2048", "hidden": "0"})
	h.Files(sda+"/sda1", map[string]string{"dev": "8:1", "partition": "1"})
	h.Link("/sys/class/block/sda", sda)
	h.Link("/sys/class/block/sda1", sda+"/sda1")
	h.Files(eth0, map[string]string{"address": "52:54:00:00:00:01"})
	h.Link("/sys/class/net/eth0", eth0)
	h.Files("/proc", map[string]string{
		"self/mountinfo": rootOnly, "swaps": noSwaps,
		"self/net/route":      heading + "\neth1\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0",
		"self/net/ipv6_route": "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo",
	})
	h.Link("/proc/net", "/proc/self/net")
	return h
}

func use(t *testing.T, h *device.Host, f devicetest.Function) (string, error) {
	t.Helper()
	a, err := topology.ParsePCIAddress(f.Address())
	if err != nil {
		t.Fatal(err)
	}
	function, ok := h.Machine.PCI.Function(a)
	if !ok {
		t.Fatalf("there is no %s", a)
	}
	return inuse.Of(h).Function(function)
}

func TestAHostUsesWhatThereAreSignsOf(t *testing.T) {
	for name, test := range map[string]struct {
		function devicetest.Function
		change   func(*devicetest.Host)
		want     string
	}{
		"nothing of the disk":      {sata, func(*devicetest.Host) {}, ""},
		"nothing of the interface": {card, func(*devicetest.Host) {}, ""},
		"the disk is mounted": {sata, func(h *devicetest.Host) {
			h.File("/proc/self/mountinfo", rootOnly+"\n29 1 8:0 / /data rw,relatime shared:1 - ext4 /dev/root rw")
		}, "sda is mounted"},
		"a partition is mounted": {sata, func(h *devicetest.Host) {
			h.File("/proc/self/mountinfo", "29 1 8:1 / /with\\040space rw - ext4 /dev/root rw")
		}, "sda1 is mounted"},
		"a mount is seen by the first process only": {sata, func(h *devicetest.Host) {
			h.File("/proc/1/mountinfo", "29 1 8:1 / / rw - ext4 /dev/root rw")
		}, "sda1 is mounted"},
		"a mount is seen by this process only": {sata, func(h *devicetest.Host) {
			h.File("/proc/1/mountinfo", rootOnly)
			h.File("/proc/self/mountinfo", "29 1 8:1 / / rw - ext4 /dev/root rw")
		}, "sda1 is mounted"},
		"btrfs has its own numbers": {sata, func(h *devicetest.Host) {
			h.File("/proc/self/mountinfo", "29 1 0:27 /root / rw - btrfs /dev/sda1 rw,subvol=/root")
		}, "sda1 is mounted"},
		"btrfs is made of several disks": {sata, func(h *devicetest.Host) {
			h.Link("/sys/fs/btrfs/0c4e9a40-58a1-4f9c-8d1c-111111111111/devices/sda", sda)
		}, "sda is mounted"},
		"a container has mounted it": {sata, func(h *devicetest.Host) { h.File("/sys/fs/xfs/sda/stats/stats", "") }, "sda is mounted"},
		"another disk is mounted":    {sata, func(h *devicetest.Host) { h.File("/proc/1/mountinfo", "29 1 8:17 / / rw - ext4 /dev/sdb1 rw") }, ""},
		"something without a node has its name": {sata, func(h *devicetest.Host) {
			h.File("/proc/self/mountinfo", "29 1 0:30 / /tmp rw - tmpfs sda rw")
		}, ""},
		"a partition is swap space": {sata, func(h *devicetest.Host) {
			h.File("/proc/swaps", noSwaps+"\n/dev/sda1                               partition\t8388604\t\t0\t\t-2")
		}, "sda1 is swap space"},
		"another partition is swap space": {sata, func(h *devicetest.Host) {
			h.File("/proc/swaps", noSwaps+"\n/dev/sda11 partition 8388604 0 -2")
		}, ""},
		"a kernel cannot swap": {sata, func(h *devicetest.Host) { h.Remove("/proc/swaps") }, ""},
		"a partition is in a volume group": {sata, func(h *devicetest.Host) {
			h.Link(sda+"/sda1/holders/dm-0", "/sys/devices/virtual/block/dm-0")
		}, "sda1 is a part of dm-0"},
		"the disk is in a RAID": {sata, func(h *devicetest.Host) {
			h.Link(sda+"/holders/md0", "/sys/devices/virtual/block/md0")
		}, "sda is a part of md0"},
		"the interface has the default route": {card, func(h *devicetest.Host) {
			h.File("/proc/self/net/route", heading+"\neth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0")
		}, "eth0 has the default route"},
		"the first process has another network": {card, func(h *devicetest.Host) {
			h.File("/proc/1/net/route", heading+"\neth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0")
		}, "eth0 has the default route"},
		"half of all addresses is no default route": {card, func(h *devicetest.Host) {
			h.File("/proc/self/net/route", heading+"\neth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000080\t0\t0\t0")
		}, ""},
		"the interface has the default route of IPv6": {card, func(h *devicetest.Host) {
			h.File("/proc/self/net/ipv6_route", "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0")
		}, "eth0 has the default route"},
		"a kernel has neither IPv6 nor routes": {card, func(h *devicetest.Host) {
			h.Remove("/proc/self/net/ipv6_route")
			h.File("/proc/self/net/route", heading)
		}, ""},
		"the interface is in a bond": {card, func(h *devicetest.Host) {
			h.Link(eth0+"/master", "/sys/devices/virtual/net/bond0")
		}, "eth0 is a port of another interface"},
		"the interface is in a bridge": {card, func(h *devicetest.Host) { h.File(eth0+"/brport/port_no", "0x1") }, "eth0 is a port of another interface"},
		"the interface carries a VLAN": {card, func(h *devicetest.Host) {
			h.Link(eth0+"/upper_vlan7", "/sys/devices/virtual/net/vlan7")
		}, "eth0 is below vlan7"},
		"the class does not list the interface": {card, func(h *devicetest.Host) {
			h.Remove("/sys/class/net")
			h.File(eth0+"/brport/port_no", "0x1")
		}, "eth0 is a port of another interface"},
	} {
		t.Run(name, func(t *testing.T) {
			h := idle(t)
			test.change(h)
			if got, err := use(t, h.Open(), test.function); got != test.want || err != nil {
				t.Errorf("used because %q, %v, want because %q", got, err, test.want)
			}
		})
	}
}

func TestWhatCannotBeToldIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		function devicetest.Function
		change   func(*devicetest.Host)
		want     string
	}{
		"no mounts":                            {sata, func(h *devicetest.Host) { h.Remove("/proc/self/mountinfo") }, "none of proc/1/mountinfo, proc/self/mountinfo can be read"},
		"garbled mounts":                       {sata, func(h *devicetest.Host) { h.File("/proc/self/mountinfo", "29 1 8-0 / / rw - ext4 /dev/sda rw") }, "proc/self/mountinfo has the line"},
		"half a line of mounts":                {sata, func(h *devicetest.Host) { h.File("/proc/self/mountinfo", rootOnly+"\n29 1 8:0 / / rw") }, "proc/self/mountinfo has the line"},
		"one view of the mounts is unreadable": {sata, func(h *devicetest.Host) { h.File("/proc/1/mountinfo/x", "") }, "reading proc/1/mountinfo"},
		"garbled swaps":                        {sata, func(h *devicetest.Host) { h.File("/proc/swaps", noSwaps+"\nx") }, "proc/swaps has the line"},
		"garbled numbers of a partition":       {sata, func(h *devicetest.Host) { h.File(sda+"/sda1/dev", "8") }, "sda1/dev is \"8\""},
		"no numbers of a disk":                 {sata, func(h *devicetest.Host) { h.Remove(sda + "/dev") }, "sda/dev is \"\""},
		"no routes":                            {card, func(h *devicetest.Host) { h.Remove("/proc/self/net/route") }, "none of proc/1/net/route, proc/net/route can be read"},
		"garbled routes":                       {card, func(h *devicetest.Host) { h.File("/proc/self/net/route", heading+"\neth0 0 0 0 0 0 0 0") }, "proc/net/route has the line"},
		"hidden routes":                        {card, func(h *devicetest.Host) { h.File("/proc/self/net/route", "") }, "proc/net/route does not begin with"},
		"hidden mounts":                        {sata, func(h *devicetest.Host) { h.File("/proc/self/mountinfo", "") }, "there is not a single mount"},
		"hidden swaps":                         {sata, func(h *devicetest.Host) { h.File("/proc/swaps", "") }, "proc/swaps does not begin with"},
		"half a line of routes":                {card, func(h *devicetest.Host) { h.File("/proc/self/net/route", heading+"\neth0 00000000") }, "proc/net/route has the line"},
		"garbled routes of IPv6":               {card, func(h *devicetest.Host) { h.File("/proc/self/net/ipv6_route", "eth0") }, "proc/net/ipv6_route has the line"},
		"garbled numbers of a disk with paths": {nvme, func(h *devicetest.Host) { multipath(h); h.File(head+"/dev", "x") }, "nvme0n1/dev is \"x\""},
	} {
		t.Run(name, func(t *testing.T) {
			h := idle(t)
			test.change(h)
			got, err := use(t, h.Open(), test.function)
			if got != "" || err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("used because %q, %v, want an error with %q", got, err, test.want)
			}
		})
	}
}

// forbidden is a root with a file that is not for us.
type forbidden struct {
	fs.ReadLinkFS
	name string
}

func (f forbidden) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return f.ReadLinkFS.Open(name)
}

func TestOneViewOfAFileIsEnough(t *testing.T) {
	for name, want := range map[string]string{
		"proc/1/mountinfo":    "sda is mounted",
		"proc/self/mountinfo": "sda1 is mounted",
	} {
		t.Run("not "+name, func(t *testing.T) {
			h := idle(t)
			h.File("/proc/1/mountinfo", "29 1 8:1 / / rw - ext4 /dev/root rw")
			h.File("/proc/self/mountinfo", "29 1 8:0 / / rw - ext4 /dev/root rw")
			root, err := topology.OpenRoot(h.Dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
			if got, err := use(t, device.NewHost(forbidden{root, name}, h.Open().Machine), sata); got != want || err != nil {
				t.Errorf("used because %q, %v, want because %q", got, err, want)
			}
		})
	}
}

func TestAFunctionWithoutDisksAndInterfacesNeedsNoProc(t *testing.T) {
	h := idle(t)
	h.Remove("/proc/self")
	h.Remove("/sys/class/block")
	if got, err := use(t, h.Open(), sata); got != "" || err != nil {
		t.Errorf("used because %q, %v", got, err)
	}
}

var nvme = devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0e.0/pci10000:00/10000:01:00.0", Vendor: 0x144d, Device: 0xa80a, Class: 0x010802, Group: 5, Driver: "nvme"}

const head = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"

// multipath puts a mounted NVMe namespace on the host, behind a VMD, that has two ways of
// which the kernel has hidden one.
func multipath(h *devicetest.Host) {
	h.Add(devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0e.0", Vendor: 0x8086, Device: 0x201d, Class: 0x010400, Group: 5, Driver: "vmd"}, nvme)
	h.Files(nvme.Path+"/nvme/nvme3/nvme0c3n1", map[string]string{"hidden": "1", "size": "2048"})
	h.Link("/sys/class/block/nvme0c3n1", nvme.Path+"/nvme/nvme3/nvme0c3n1")
	h.Files(head, map[string]string{"dev": "259:1", "hidden": "0"})
	h.Link("/sys/class/block/nvme0n1", head)
	h.Link("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme3", nvme.Path+"/nvme/nvme3")
	h.Link("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme4", card.Path+"/nvme/nvme4")
	h.File("/proc/1/mountinfo", "29 1 259:1 / / rw - ext4 /dev/root rw")
}

func TestANamespaceWithSeveralWaysIsThatOfTheControllersThatHaveIt(t *testing.T) {
	h := idle(t)
	multipath(h)
	for _, test := range []struct {
		function devicetest.Function
		want     string
	}{
		{nvme, "nvme0n1 is mounted"},
		{card, ""}, // The subsystem has a controller there, but not with this namespace.
	} {
		if got, err := use(t, h.Open(), test.function); got != test.want || err != nil {
			t.Errorf("%s is used because %q, %v, want because %q", test.function.Address(), got, err, test.want)
		}
	}
}

func TestWhatIsBehindAFunctionCounts(t *testing.T) {
	h := idle(t)
	multipath(h)
	vmd := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:0e.0"}
	if got, err := use(t, h.Open(), vmd); got != "nvme0n1 is mounted" || err != nil {
		t.Errorf("the VMD is used because %q, %v", got, err)
	}
}

func TestWhatAVirtualFunctionIsUsedForCountsForThePhysicalOne(t *testing.T) {
	h := idle(t)
	vf := card
	vf.Path = "/sys/devices/pci0000:00/0000:00:1c.0/0000:02:10.0"
	h.Add(vf)
	h.Virtual(card, vf, 0)
	h.Files(vf.Path+"/net/eth7/brport", map[string]string{"port_no": "0x1"})
	h.Link("/sys/class/net/eth7", vf.Path+"/net/eth7")
	const want = "eth7 is a port of another interface"
	for _, f := range []devicetest.Function{card, vf} {
		if got, err := use(t, h.Open(), f); got != want || err != nil {
			t.Errorf("%s is used because %q, %v, want because %q", f.Address(), got, err, want)
		}
	}
}

func TestInterfacesAreThoseBelowTheFunctionItself(t *testing.T) {
	h := idle(t)
	virtio := devicetest.Function{Path: "/sys/devices/pci0000:00/0000:00:03.0", Vendor: 0x1af4, Device: 0x1041, Class: 0x020000, Group: -1, Driver: "virtio-pci"}
	h.Add(virtio)
	h.File(virtio.Path+"/virtio0/net/eth3/address", "52:54:00:00:00:03")
	h.Link("/sys/class/net/eth3", virtio.Path+"/virtio0/net/eth3")
	h.File(card.Path+"/net/eth9/address", "52:54:00:00:00:09") // without an entry in the class
	host := h.Open()
	var got [][]string
	for _, f := range host.Functions(func(f topology.PCIFunction) bool { return f.Kind == topology.PCIEndpoint || f.Kind.IsBridge() }) {
		got = append(got, inuse.Of(host).Interfaces(f))
	}
	want := [][]string{
		{"sys/class/net/eth3"}, nil, nil, // virtio, SATA, the bridge before the card
		{"sys/class/net/eth0", "sys/bus/pci/devices/0000:02:00.0/net/eth9"},
	}
	if diff := cmp.Diff(want, slices.Clone(got)); diff != "" {
		t.Errorf("interfaces -want +got:\n%s", diff)
	}
}
