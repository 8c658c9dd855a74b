package testbed

import (
	"errors"
	"strconv"

	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/numa"
)

// Variable is one line of Env.
type Variable struct{ Name, Value string }

// Env says where everything is, as environment variables for scripts and
// tests. The values contain no character that a shell treats specially.
//
// Those that begin with TESTBED_NUMA are there while there is a machine.
func (t *Testbed) Env() ([]Variable, error) {
	r, err := t.load()
	if err != nil {
		return nil, err
	}
	l := t.layout
	vars := []Variable{
		{"KUBECONFIG", l.Kubeconfig("admin")},
		{"TESTBED_STATE", l.State},
		{"TESTBED_NODE", r.NodeName},
		{"TESTBED_APISERVER_HOST", "127.0.0.1"},
		{"TESTBED_APISERVER_PORT", strconv.Itoa(r.Ports.APIServer)},
		{"TESTBED_SCHEDULER_PORT", strconv.Itoa(r.Ports.Scheduler)},
		{"TESTBED_BIN", l.Bin()},
		{"TESTBED_KUBECTL", l.Program("kubectl")},
		{"TESTBED_CTR", l.Program("ctr")},
		{"TESTBED_RUNC", l.Program("runc")},
		{"TESTBED_CONTAINERD_SOCKET", l.ContainerdSocket()},
		{"TESTBED_NRI_SOCKET", l.NRISocket()},
		{"TESTBED_CDI_DIR", l.CDI()},
		{"TESTBED_KUBELET_ROOT", l.KubeletRoot()},
		{"TESTBED_PLUGINS_DIR", l.KubeletRoot() + "/plugins"},
		{"TESTBED_PLUGIN_REGISTRY", l.KubeletRoot() + "/plugins_registry"},
		{"TESTBED_POD_RESOURCES_SOCKET", l.PodResourcesSocket()},
		{"TESTBED_POD_LOGS", l.PodLogs()},
		{"TESTBED_LOGS", l.Logs()},
		{"TESTBED_CGROUP", l.Cgroup()},
		{"TESTBED_BRIDGE", l.Bridge()},
		{"TESTBED_PAUSE_IMAGE", PauseImage},
		{"TESTBED_WORKLOAD_IMAGE", WorkloadImage},
		{"TESTBED_TOPOLET_IMAGE", TopoletImage},
		{"TESTBED_SERVICE_CIDR", component.ServiceCIDR},
	}
	machine, err := numa.Load(l)
	if errors.Is(err, numa.ErrNone) {
		return vars, nil
	}
	return append(vars,
		Variable{"TESTBED_NUMA_NODE", machine.NodeName},
		Variable{"TESTBED_NUMA_CHANNEL", machine.URL()}), err
}
