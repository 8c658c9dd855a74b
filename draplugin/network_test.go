package draplugin

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	resourceapi "k8s.io/api/resource/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gaudi"
	"github.com/topolet/topolet/topology/topologytest"
)

// A container may have many accelerators: their network is set up once.
func TestTheNetworkOfAcceleratorsIsSetUpOnceForThoseWhoAskForIt(t *testing.T) {
	h := devicetest.New(t)
	for index, address := range map[string]string{"0": "0000:83:00.0", "1": "0000:84:00.0"} {
		f := devicetest.Function{Path: "/sys/devices/pci0000:80/" + address, Vendor: 0x1da3, Device: 0x1020, Class: 0x120000, Group: -1, Driver: "habanalabs"}
		h.Add(f)
		h.Files(f.Path, map[string]string{"module_id": index, "status": "operational"})
		h.Char(f.Path, "accel/accel"+index, "261:"+index, "accel/accel"+index)
	}
	const program, file = "/usr/bin/habana-container-hook", "/etc/habanalabs/gaudinet.json"
	seconds := 60
	hooks := []specs.Hook{{Path: program, Args: []string{"habana-container-hook", "createRuntime"}, Timeout: &seconds}}
	mounts := []specs.Mount{{Destination: file, Source: file, Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}}}
	const scaleOut = `{"apiVersion":"topolet.dev/v1alpha1","kind":"GaudiConfig","scaleOut":true}`
	for name, test := range map[string]struct {
		family     gaudi.Family
		parameters string
		hooks      []specs.Hook
		mounts     []specs.Mount
	}{
		"as configured":         {gaudi.Family{NetworkHook: program, NetworkConfig: file}, scaleOut, hooks, mounts},
		"without addresses":     {gaudi.Family{NetworkHook: program}, scaleOut, hooks, nil},
		"not configured":        {gaudi.Family{}, scaleOut, nil, nil},
		"who does not ask":      {gaudi.Family{NetworkHook: program, NetworkConfig: file}, `{"apiVersion":"topolet.dev/v1alpha1","kind":"GaudiConfig"}`, nil, nil},
		"without any parameter": {gaudi.Family{NetworkHook: program, NetworkConfig: file}, "", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, topologytest.Spec{})
			devices, problems := device.Discover(h.Open(), test.family)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			r.ledger.ReplaceDevices(devices)
			claim := allocated("c", deviceResult("accelerators", "gaudi-0000-83-00-0"), deviceResult("accelerators", "gaudi-0000-84-00-0"))
			if test.parameters != "" {
				configured(claim, resourceapi.AllocationConfigSourceClaim, test.parameters)
			}
			r.mustPrepare(t, claim)
			cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
			if err != nil {
				t.Fatal(err)
			}
			spec := &specs.Spec{}
			if _, err := cache.InjectDevices(spec, deviceID("c", "accelerators")); err != nil {
				t.Fatal(err)
			}
			var got []specs.Hook
			if spec.Hooks != nil {
				got = spec.Hooks.CreateRuntime
			}
			if diff := cmp.Diff(test.hooks, got); diff != "" {
				t.Errorf("hooks -want +got:\n%s", diff)
			}
			if diff := cmp.Diff(append([]specs.Mount{unplaced}, test.mounts...), spec.Mounts); diff != "" {
				t.Errorf("mounts -want +got:\n%s", diff)
			}
		})
	}
}
