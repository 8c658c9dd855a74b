package main

import (
	"fmt"
	"slices"

	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/deviceattribute"
	"k8s.io/utils/ptr"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// The machine of all nodes: two sockets, 128 CPUs, 16 of them in each NUMA node.
var machine = topologytest.Spec{Sockets: 2, NUMAPerSocket: 4, CoresPerL3: 8, Threads: 2}

const (
	claimCPUs = 8
	// impossibleCPUs is more than a NUMA node has, and not more devices than a
	// claim may have.
	impossibleCPUs = 24

	driverPerCPU = "percpu.example"
)

// model is a way to publish the machine, and the claim that goes with it.
type model struct {
	name   string
	driver string
	// devices of one node.
	devices []resourceapi.Device
	// class is one more than the chart's, or nil.
	class *resourceapi.DeviceClass
	// request asks for so many CPUs of one NUMA node.
	request func(cpus int64) resourceapi.DeviceClaim
}

func models() []model {
	m := topologytest.New(machine)
	domains := allocator.Domains(m, allocator.DefaultReserved(m))
	return []model{
		{
			name: "a device for each NUMA node", driver: draplugin.DriverName,
			devices: draplugin.Devices(&allocator.Inventory{Machine: m, Domains: domains}, draplugin.Publication{}),
			request: fromNUMANode,
		},
		{
			name: "a device for each CPU", driver: driverPerCPU,
			devices: perCPU(m, domains),
			class: &resourceapi.DeviceClass{
				ObjectMeta: metav1.ObjectMeta{Name: driverPerCPU},
				Spec: resourceapi.DeviceClassSpec{Selectors: []resourceapi.DeviceSelector{{
					CEL: &resourceapi.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", driverPerCPU)},
				}}},
			},
			request: fromSingleCPUs,
		},
	}
}

// perCPU publishes the same CPUs with what a claim might select them by.
func perCPU(m *topology.Machine, domains []*allocator.Domain) []resourceapi.Device {
	attribute := func(n int) resourceapi.DeviceAttribute {
		return resourceapi.DeviceAttribute{IntValue: ptr.To(int64(n))}
	}
	var devices []resourceapi.Device
	for _, c := range m.CPUs {
		if !slices.ContainsFunc(domains, func(d *allocator.Domain) bool { return d.CPUs.Contains(c.ID) }) {
			continue
		}
		devices = append(devices, resourceapi.Device{
			Name: fmt.Sprintf("cpu-%03d", c.ID),
			Attributes: map[resourceapi.QualifiedName]resourceapi.DeviceAttribute{
				"cpuID": attribute(c.ID), "coreID": attribute(c.Core), "socketID": attribute(c.Socket), "l3ID": attribute(c.L3),
				deviceattribute.StandardDeviceAttributeNUMANode: attribute(c.NUMANode),
			},
		})
	}
	return devices
}

const requestName = "cpus"

func fromNUMANode(cpus int64) resourceapi.DeviceClaim {
	return resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{{
		Name: requestName,
		Exactly: &resourceapi.ExactDeviceRequest{
			DeviceClassName: "cpu.topolet.dev",
			Capacity: &resourceapi.CapacityRequirements{Requests: map[resourceapi.QualifiedName]resource.Quantity{
				draplugin.CapacityCPUs: *resource.NewQuantity(cpus, resource.DecimalSI),
			}},
		},
	}}}
}

func fromSingleCPUs(cpus int64) resourceapi.DeviceClaim {
	return resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{
			Name: requestName,
			Exactly: &resourceapi.ExactDeviceRequest{
				DeviceClassName: driverPerCPU, AllocationMode: resourceapi.DeviceAllocationModeExactCount, Count: cpus,
			},
		}},
		Constraints: []resourceapi.DeviceConstraint{{
			Requests:       []string{requestName},
			MatchAttribute: ptr.To(resourceapi.FullyQualifiedName(deviceattribute.StandardDeviceAttributeNUMANode)),
		}},
	}
}

// slice is the pool of one node. It has room for all: there are no more devices than
// the API allows, and no counters.
func (m model) slice(node string) *resourceapi.ResourceSlice {
	return &resourceapi.ResourceSlice{
		ObjectMeta: metav1.ObjectMeta{Name: node},
		Spec: resourceapi.ResourceSliceSpec{
			Driver: m.driver, NodeName: ptr.To(node), Devices: m.devices,
			Pool: resourceapi.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1},
		},
	}
}
