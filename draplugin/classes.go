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
		class("cpu", allocator.NUMALevel, false),
		class("cpu-isolated", allocator.NUMALevel, true),
	}
	for _, level := range levels {
		classes = append(classes, class("cpu-"+string(level), level, false))
	}
	return classes
}

// class selects the CPU devices of one level. A class always selects the level: a
// pool of mixed levels would make the scheduler's search needlessly large.
func class(name string, level allocator.Level, isolated bool) *resourceapi.DeviceClass {
	not := "!"
	if isolated {
		not = ""
	}
	expression := fmt.Sprintf(`device.driver == %q && `+
		`device.attributes[%q].?level.orValue("") == %q && `+
		`%sdevice.attributes[%q].?isolated.orValue(false)`, DriverName, DriverName, string(level), not, DriverName)
	return &resourceapi.DeviceClass{
		TypeMeta:   metav1.TypeMeta{APIVersion: resourceapi.SchemeGroupVersion.String(), Kind: "DeviceClass"},
		ObjectMeta: metav1.ObjectMeta{Name: name + "." + DriverName},
		Spec: resourceapi.DeviceClassSpec{
			Selectors: []resourceapi.DeviceSelector{{CEL: &resourceapi.CELDeviceSelector{Expression: expression}}},
		},
	}
}
