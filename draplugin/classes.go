package draplugin

import (
	"fmt"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/allocator"
)

// Classes returns the DeviceClasses that the chart installs for a node which offers
// these levels beside its NUMA nodes: those that people name in their claims.
func Classes(levels ...allocator.Level) []*resourceapi.DeviceClass {
	classes := []*resourceapi.DeviceClass{
		cpuClass("cpu", allocator.NUMALevel, false),
		cpuClass("cpu-isolated", allocator.NUMALevel, true),
		class("memory", fmt.Sprintf(`device.attributes[%q].?family.orValue("") == %q`, DriverName, FamilyMemory)),
	}
	for _, level := range levels {
		classes = append(classes, cpuClass("cpu-"+string(level), level, false))
	}
	return classes
}

// cpuClass selects the CPU devices of one level. A class always selects the level: a
// pool of mixed levels would make the scheduler's search needlessly large.
func cpuClass(name string, level allocator.Level, isolated bool) *resourceapi.DeviceClass {
	not := "!"
	if isolated {
		not = ""
	}
	return class(name, fmt.Sprintf(`device.attributes[%q].?level.orValue("") == %q && `+
		`%sdevice.attributes[%q].?isolated.orValue(false)`, DriverName, string(level), not, DriverName))
}

// class selects the driver's devices of which the expression is true.
func class(name, expression string) *resourceapi.DeviceClass {
	expression = fmt.Sprintf("device.driver == %q && ", DriverName) + expression
	return &resourceapi.DeviceClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "DeviceClass"},
		ObjectMeta: metav1.ObjectMeta{Name: name + "." + DriverName},
		Spec: resourceapi.DeviceClassSpec{
			Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}},
		},
	}
}
