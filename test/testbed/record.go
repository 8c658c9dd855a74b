package testbed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/host"
)

// record is what the state folder remembers of the options, so that a later
// command works on the same cluster without repeating them.
type record struct {
	NodeName      string          `json:"nodeName"`
	PodCIDR       string          `json:"podCIDR"`
	FeatureGates  map[string]bool `json:"featureGates,omitempty"`
	RuntimeConfig string          `json:"runtimeConfig,omitempty"`
	Ports         component.Ports `json:"ports"`
}

// ErrNone says that the state folder has no testbed.
var ErrNone = errors.New("there is no testbed here: create one with `testbed up`")

func (t *Testbed) load() (record, error) {
	data, err := os.ReadFile(t.layout.Record())
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, fmt.Errorf("%s: %w", t.layout.State, ErrNone)
	}
	if err != nil {
		return record{}, fmt.Errorf("read the testbed's record: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return record{}, fmt.Errorf("read the testbed's record %s (run `testbed down` to start afresh): %w", t.layout.Record(), err)
	}
	return r, nil
}

func (r record) save(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the testbed's record: %w", err)
	}
	return host.WriteFile(file, append(data, '\n'))
}

// merge lays the options over what was recorded before, if anything.
func merge(o Options, r record) record {
	pick := func(values ...string) string {
		for _, v := range values {
			if v != "" {
				return v
			}
		}
		return ""
	}
	r.NodeName = pick(o.NodeName, r.NodeName, DefaultNodeName)
	r.PodCIDR = pick(o.PodCIDR, r.PodCIDR, DefaultPodCIDR)
	if o.FeatureGates != nil {
		r.FeatureGates = o.FeatureGates
	}
	if o.RuntimeConfig != nil {
		r.RuntimeConfig = *o.RuntimeConfig
	}
	if r.Ports == (component.Ports{}) {
		r.Ports = component.DefaultPorts()
	}
	if o.APIServerPort != 0 {
		r.Ports.APIServer = o.APIServerPort
	}
	return r
}

// choosePodCIDR is the default network of the pods, or the next that this
// host does not reach yet.
func choosePodCIDR(taken func(netip.Prefix) (bool, error)) (string, error) {
	p := netip.MustParsePrefix(DefaultPodCIDR)
	first := p.Addr().As4()
	for n := first[1]; n < 255; n++ {
		candidate := netip.PrefixFrom(netip.AddrFrom4([4]byte{first[0], n}), p.Bits())
		used, err := taken(candidate)
		if err != nil {
			return "", err
		}
		if !used {
			return candidate.String(), nil
		}
	}
	return "", fmt.Errorf("this host has routes to %s and all that follow: choose a network with --pod-cidr", DefaultPodCIDR)
}
