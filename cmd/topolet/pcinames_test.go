package main

import "testing"

func TestPCINames(t *testing.T) {
	for name, tc := range map[string]struct {
		vendor, device         int
		wantVendor, wantDevice string
	}{
		"a device":            {0x8086, 0x10c9, "Intel Corporation", "82576 Gigabit Network Connection"},
		"an unknown device":   {0x8086, -1, "Intel Corporation", ""},
		"an unknown vendor":   {-1, 0x10c9, "", ""},
		"nothing that exists": {0x10000, 0x10000, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			vendor, device := pciNames(tc.vendor, tc.device)
			if vendor != tc.wantVendor || device != tc.wantDevice {
				t.Errorf("got %q, %q", vendor, device)
			}
		})
	}
}
