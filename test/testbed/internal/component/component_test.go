package component

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/topolet/topolet/test/testbed/internal/layout"
)

func example(t *testing.T) Cluster {
	t.Helper()
	l, err := layout.New("/srv/tb")
	if err != nil {
		t.Fatal(err)
	}
	return Cluster{
		Layout:       l,
		NodeName:     "n1",
		Ports:        DefaultPorts(),
		PodCIDR:      netip.MustParsePrefix("10.99.3.0/24"),
		FeatureGates: map[string]bool{"DRAListTypeAttributes": true, "DRAAdminAccess": false},
		PauseImage:   "docker.io/x/pause:1",
	}
}

func TestEveryComponentHasASpec(t *testing.T) {
	c := example(t)
	for _, name := range Names() {
		s, err := c.Spec(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if filepath.Base(s.Path) != name || s.Name != name || len(s.Args) == 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if _, err := c.Spec("dockerd"); err == nil || !strings.Contains(err.Error(), Kubelet) {
		t.Errorf("unknown component: error %v, want one that lists the known", err)
	}
}

// No component may leave the state folder, or listen where others can reach.
func TestArgumentsStayInside(t *testing.T) {
	c := example(t)
	for _, name := range Names() {
		s, err := c.Spec(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.Args {
			_, value, _ := strings.Cut(a, "=")
			if strings.HasPrefix(value, "/") && !strings.HasPrefix(value, "/srv/tb/") {
				t.Errorf("%s %s: outside of the state folder", name, a)
			}
			if strings.Contains(a, "0.0.0.0") {
				t.Errorf("%s %s: listens everywhere", name, a)
			}
		}
	}
}

func TestFeatureGatesReachAllThatHaveThem(t *testing.T) {
	c := example(t)
	const want = "--feature-gates=DRAAdminAccess=false,DRAListTypeAttributes=true"
	for _, name := range []string{APIServer, ControllerManager, Scheduler} {
		s, err := c.Spec(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(s.Args, want) {
			t.Errorf("%s lacks %s", name, want)
		}
	}
	if k := strictKubelet(t, c); !k.FeatureGates["DRAListTypeAttributes"] || len(k.FeatureGates) != 2 {
		t.Errorf("kubelet: %v", k.FeatureGates)
	}
}

// strictKubelet fails on a field that the kubelet would not know.
func strictKubelet(t *testing.T, c Cluster) kubeletconfig.KubeletConfiguration {
	t.Helper()
	text, err := c.kubeletConfig()
	if err != nil {
		t.Fatal(err)
	}
	var k kubeletconfig.KubeletConfiguration
	if err := yaml.UnmarshalStrict([]byte(text), &k); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKubeletConfiguration(t *testing.T) {
	k := strictKubelet(t, example(t))
	if k.CgroupRoot != example(t).Layout.Cgroup() || k.CgroupDriver != "cgroupfs" {
		t.Errorf("cgroup root %q, driver %q", k.CgroupRoot, k.CgroupDriver)
	}
	if k.FailCgroupV1 == nil || *k.FailCgroupV1 {
		t.Error("the kubelet would refuse a host with cgroup v1")
	}
	if k.Address != "10.99.3.1" {
		t.Errorf("the kubelet listens on %q", k.Address)
	}
	if *k.Authentication.Anonymous.Enabled {
		t.Error("anonymous requests are allowed")
	}
}

func TestNetworkConfiguration(t *testing.T) {
	c := example(t)
	text, err := c.networkConfig()
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Plugins []struct {
			Type, Bridge      string
			IPMasq, IsGateway bool
			IPAM              struct {
				Ranges [][]struct{ Subnet, Gateway string }
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	bridge := config.Plugins[0]
	// A gateway would make the plugin switch on forwarding for the whole host.
	if bridge.IPMasq || bridge.IsGateway {
		t.Errorf("the plugin would change the host: %+v", bridge)
	}
	if r := bridge.IPAM.Ranges[0][0]; r.Subnet != "10.99.3.0/24" || r.Gateway != c.NodeIP().String() {
		t.Errorf("range %+v", r)
	}
}

// Each path in the runtime's configuration is the testbed's own.
func TestContainerdConfiguration(t *testing.T) {
	config := example(t).containerdConfig()
	for line := range strings.Lines(config) {
		if _, value, ok := strings.Cut(line, `"/`); ok && !strings.HasPrefix(value, "srv/tb/") {
			t.Errorf("outside of the state folder: %s", line)
		}
	}
	for _, want := range []string{"restrict_oom_score_adj = true", `sandbox = "docker.io/x/pause:1"`, `socket_path = "/srv/tb/run/nri.sock"`} {
		if !strings.Contains(config, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// A server's certificate has to name what its clients call it.
func TestIdentities(t *testing.T) {
	names := map[string]bool{}
	for _, id := range example(t).Identities() {
		if names[id.Name] {
			t.Errorf("two identities are called %s", id.Name)
		}
		names[id.Name] = true
	}
	for file, id := range Kubeconfigs() {
		if !names[id] {
			t.Errorf("the kubeconfig %s is for the unknown identity %s", file, id)
		}
	}
	for _, name := range Names() {
		s, err := example(t).Spec(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range s.Args {
			if base := filepath.Base(a); strings.HasSuffix(a, ".crt") && base != "ca.crt" && !names[strings.TrimSuffix(base, ".crt")] {
				t.Errorf("%s: no certificate is made for %s", name, a)
			}
		}
	}
}

func TestPortsAreEachVisitedOnce(t *testing.T) {
	p := DefaultPorts()
	seen := map[*int]bool{}
	values := map[int]bool{}
	p.Each(func(_ string, port *int) { seen[port], values[*port] = true, true })
	if len(seen) != 7 || len(values) != 7 {
		t.Errorf("visited %d ports with %d values", len(seen), len(values))
	}
}
