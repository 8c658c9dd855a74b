package allocator

import (
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestAnIdleSiblingIsAnObstacle(t *testing.T) {
	m := topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4, Threads: 2})
	l, err := NewLedger(m, Policy{ReservedCPUs: topology.NewCPUSet(0)}, &memory{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, idle := range []bool{false, true} {
		uid := map[bool]string{false: "used", true: "idle"}[idle]
		if _, err := l.Grant(claim(uid, "pod"), []Request{{Name: "cpus", Domain: "numa-1", Count: 2, IdleSiblings: idle}}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Admit(claiming(uid, "pod", uid)); err != nil {
			t.Fatal(err)
		}
	}
	obstacles := map[ContainerID]string{}
	for _, h := range l.Holders() {
		obstacles[h.ID] = h.Obstacle
	}
	if obstacles["used"] != "" || obstacles["idle"] != "request cpus leaves CPUs idle, and an idle CPU is in nobody's partition" {
		t.Errorf("obstacles %q", obstacles)
	}
}
