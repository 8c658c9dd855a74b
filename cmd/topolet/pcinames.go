package main

import "github.com/u-root/u-root/pkg/pci"

// pciNames returns the names that the PCI ID database has for a vendor and for a
// device of its, "" for what it does not have. The database is part of the
// program: an answer about a snapshot does not depend on the host's files.
func pciNames(vendor, device int) (vendorName, deviceName string) {
	for _, v := range pci.IDs {
		if int(v.ID) != vendor {
			continue
		}
		for _, d := range v.Devices {
			if int(d.ID) == device {
				return v.Name, d.Name
			}
		}
		return v.Name, ""
	}
	return "", ""
}
