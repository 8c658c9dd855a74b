package explain

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/topology"
)

// Node is the node about which is asked.
type Node struct {
	// Name is that of the Node object, which slices of other drivers name. It may
	// be any name if there are none.
	Name    string
	Machine *topology.Machine
	Policy  allocator.Policy
	// Grants are what claims hold already.
	Grants []allocator.Grant
	// Others are slices of other drivers. Those of topolet itself are left out:
	// what it publishes follows from the machine. Which of their devices are in use
	// is not known; they count as free.
	Others []*resourceapi.ResourceSlice
}

// GrantError says that a grant cannot be of the node.
type GrantError struct {
	Grant  allocator.Grant
	Device string
}

func (e *GrantError) Error() string {
	return fmt.Sprintf("claim %s/%s holds something of device %s, which this node does not have: "+
		"use the checkpoint, the machine and the configuration (levels, reservedCPUs) of the same node", e.Grant.Namespace, e.Grant.Name, e.Device)
}

// forgetful is a store for a ledger that nobody needs again.
type forgetful struct{}

func (forgetful) Save([]allocator.Grant) error { return nil }

// ledger returns the node's ledger with all that is held.
func (n Node) ledger() (*allocator.Ledger, error) {
	ledger, err := allocator.NewLedger(n.Machine, n.Policy, forgetful{}, n.Grants)
	if err != nil {
		return nil, err
	}
	var devices []string
	for _, slice := range draplugin.Slices(ledger, n.Name) {
		for _, d := range slice.Spec.Devices {
			devices = append(devices, d.Name)
		}
	}
	for _, g := range n.Grants {
		for _, part := range g.Parts {
			if !slices.Contains(devices, part.Domain) {
				return nil, &GrantError{Grant: g, Device: part.Domain}
			}
		}
	}
	return ledger, nil
}
