package helm_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

var withGPUs = []string{"--set-json", `config.devices=[{"family":"nic"},{"family":"gpu","shares":4}]`, "--set", "stateDir=/data/topolet", "--set", "image.tag=test"}

func podOf(t *testing.T, args ...string) corev1.PodSpec {
	t.Helper()
	return only[*appsv1.DaemonSet](t, render(t, args...)).Spec.Template.Spec
}

func TestNoContainerIsPrivilegedUnlessGPUsAreAsked(t *testing.T) {
	for _, args := range [][]string{nil, withGPUs} {
		pod := podOf(t, args...)
		if len(pod.InitContainers) > 0 {
			t.Errorf("%v: init containers %+v", args, pod.InitContainers)
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil && v.HostPath.Path == "/dev" || v.EmptyDir != nil {
				t.Errorf("%v: volume %s", args, v.Name)
			}
		}
	}
}

func TestGPUsAreAskedByAContainerThatHasNothingElse(t *testing.T) {
	without := podOf(t, withGPUs...)
	pod := podOf(t, append(slices.Clone(withGPUs), "--set", "gpuMemory=true")...)
	if diff := cmp.Diff(without.Containers, pod.Containers); diff != "" {
		t.Errorf("the daemon's container -without +with:\n%s", diff)
	}
	readOnly := ptr.To(corev1.RecursiveReadOnlyIfPossible)
	want := []corev1.Container{{
		Name:            "gpu-memory",
		Image:           without.Containers[0].Image,
		ImagePullPolicy: without.Containers[0].ImagePullPolicy,
		Args:            []string{"probe", "--root=/host", "--state-dir=/data/topolet"},
		Resources:       without.Containers[0].Resources,
		// The API refuses allowPrivilegeEscalation: false beside privileged.
		SecurityContext: &corev1.SecurityContext{
			RunAsUser: ptr.To(int64(0)), RunAsGroup: ptr.To(int64(0)), Privileged: ptr.To(true), ReadOnlyRootFilesystem: ptr.To(true),
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
		VolumeMounts: []corev1.VolumeMount{
			{Name: "sys", MountPath: "/host/sys", ReadOnly: true, RecursiveReadOnly: readOnly},
			{Name: "dev", MountPath: "/host/dev", ReadOnly: true, RecursiveReadOnly: readOnly},
			{Name: "state", MountPath: "/data/topolet"},
			// The admission plugin ServiceAccount mounts no token where a container has a mount.
			{Name: "no-token", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true},
		},
	}}
	if diff := cmp.Diff(want, pod.InitContainers); diff != "" {
		t.Errorf("init containers -want +got:\n%s", diff)
	}
	more := slices.DeleteFunc(slices.Clone(pod.Volumes), func(v corev1.Volume) bool {
		return slices.ContainsFunc(without.Volumes, func(w corev1.Volume) bool { return cmp.Equal(v, w) })
	})
	wantMore := []corev1.Volume{
		{Name: "dev", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/dev", Type: ptr.To(corev1.HostPathDirectory)}}},
		{Name: "no-token", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	if diff := cmp.Diff(wantMore, more); diff != "" {
		t.Errorf("volumes that are there for it -want +got:\n%s", diff)
	}
	rest := pod
	rest.InitContainers, rest.Volumes = without.InitContainers, without.Volumes
	if diff := cmp.Diff(without, rest); diff != "" {
		t.Errorf("the rest of the pod -without +with:\n%s", diff)
	}
}

func TestGPUsAreNotAskedForWhatIsNotPublished(t *testing.T) {
	for _, devices := range []string{`[]`, `[{"family":"nic"}]`} {
		out, err := helm(t, "template", "topolet", chart, "--set", "gpuMemory=true", "--set-json", "config.devices="+devices)
		if err == nil {
			t.Fatalf("%s: accepted:\n%s", devices, out)
		}
		for _, said := range []string{"gpuMemory is true", "config.devices has no family gpu", "add {family: gpu}"} {
			if !strings.Contains(err.Error(), said) {
				t.Errorf("%s: the error does not say %q: %v", devices, said, err)
			}
		}
	}
}
