package partition

import "github.com/topolet/topolet/topology"

type Kind string

const (
	Root     Kind = "root"
	Isolated Kind = "isolated"
)

type Partition struct {
	Cgroup string
	CPUs   topology.CPUSet
	Kind   Kind
}
