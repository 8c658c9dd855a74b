package helm_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"
)

func TestLint(t *testing.T) {
	if out, err := helm(t, "lint", "--strict", chart); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestObjects(t *testing.T) {
	var got []string
	for _, o := range render(t) {
		m, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join([]string{o.GetObjectKind().GroupVersionKind().Kind, m.GetNamespace(), m.GetName()}, "/"))
	}
	slices.Sort(got)
	want := []string{
		"ClusterRole//topolet",
		"ClusterRoleBinding//topolet",
		"ConfigMap/topolet-system/topolet",
		"DaemonSet/topolet-system/topolet",
		"DeviceClass//cpu-isolated.topolet.dev",
		"DeviceClass//cpu.topolet.dev",
		"DeviceClass//memory.topolet.dev",
		"ServiceAccount/topolet-system/topolet",
		"ValidatingAdmissionPolicy//topolet-claims",
		"ValidatingAdmissionPolicy//topolet-resourceslices",
		"ValidatingAdmissionPolicyBinding//topolet-claims",
		"ValidatingAdmissionPolicyBinding//topolet-resourceslices",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("objects of the chart (-want +got):\n%s", diff)
	}
}

// What the daemon may do to the API server is this list and nothing else.
func TestPermissions(t *testing.T) {
	objects := render(t)
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims"}, Verbs: []string{"get"}},
		{APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims/status"}, Verbs: []string{"patch"}},
		{
			APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims/driver"},
			ResourceNames: []string{"topolet.dev"}, Verbs: []string{"associated-node:patch"},
		},
		{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get"}},
		{
			APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceslices"},
			Verbs: []string{"get", "list", "watch", "create", "update", "delete"},
		},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	if diff := cmp.Diff(want, only[*rbacv1.ClusterRole](t, objects).Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	binding := only[*rbacv1.ClusterRoleBinding](t, objects)
	subjects := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "topolet", Namespace: namespace}}
	if diff := cmp.Diff(subjects, binding.Subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
	if n := len(all[*rbacv1.Role](objects)) + len(all[*rbacv1.RoleBinding](objects)); n != 0 {
		t.Errorf("%d roles and bindings beside the cluster role", n)
	}
}

func TestContainment(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, render(t)).Spec.Template.Spec
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Error("the pod uses the node's network, PID or IPC namespace")
	}
	want := &corev1.SecurityContext{
		RunAsUser:                ptr.To(int64(0)),
		RunAsGroup:               ptr.To(int64(0)),
		Privileged:               ptr.To(false),
		AllowPrivilegeEscalation: ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"SYS_ADMIN"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if diff := cmp.Diff(want, pod.Containers[0].SecurityContext); diff != "" {
		t.Errorf("security context (-want +got):\n%s", diff)
	}
	var paths []string
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			paths = append(paths, v.HostPath.Path)
		}
	}
	wantPaths := []string{
		"/sys", "/sys/fs/cgroup", "/var/lib/topolet", "/var/lib/kubelet/plugins/topolet.dev",
		"/var/lib/kubelet/plugins_registry", "/var/lib/kubelet/pod-resources", "/var/run/cdi", "/var/run/nri",
	}
	if diff := cmp.Diff(wantPaths, paths); diff != "" {
		t.Errorf("folders of the node (-want +got):\n%s", diff)
	}
}

// The kernel wants a capability and writable cgroups to enforce what is exclusive, and
// who leaves that to the runtime gives neither.
func TestTheKernelsTierCostsACapability(t *testing.T) {
	for _, enforcement := range []string{"Auto", "Kernel", "Runtime"} {
		pod := only[*appsv1.DaemonSet](t, render(t, "--set", "config.enforcement="+enforcement)).Spec.Template.Spec
		added := pod.Containers[0].SecurityContext.Capabilities.Add
		writable := slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == "/host/sys/fs/cgroup" && !m.ReadOnly
		})
		wanted := enforcement != "Runtime"
		if writable != wanted || slices.Contains(added, "SYS_ADMIN") != wanted {
			t.Errorf("%s: capabilities %v, cgroups writable: %v", enforcement, added, writable)
		}
	}
}

// Settings of devices are writable where the configuration has topolet change some, and the
// rest of sysfs nowhere.
func TestDevicesAreWritableWhereTheyAreChanged(t *testing.T) {
	for devices, want := range map[string]string{
		`[]`:                 "",
		`[{"family":"gpu"}]`: "",
		`[{"family":"gpu"},{"family":"nic","manageBinding":true}]`:                      "/host/sys/bus /host/sys/devices",
		`[{"family":"gpu","profiles":[{"virtualFunctions":2}]}]`:                        "/host/sys/bus /host/sys/devices",
		`[{"family":"gpu","manageBinding":true},{"family":"nic","manageBinding":true}]`: "/host/sys/bus /host/sys/devices",
	} {
		pod := only[*appsv1.DaemonSet](t, render(t, "--set-json", "config.devices="+devices)).Spec.Template.Spec
		var writable []string
		for _, m := range pod.Containers[0].VolumeMounts {
			if strings.HasPrefix(m.MountPath, "/host/") && m.MountPath != "/host/sys/fs/cgroup" && !m.ReadOnly {
				writable = append(writable, m.MountPath)
			}
		}
		if got := strings.Join(writable, " "); got != want {
			t.Errorf("%s: writable are %q, want %q", devices, got, want)
		}
	}
}

// What FPGAs are programmed with is read where the daemon looks for the host's files, and
// nobody's who does not program any.
func TestProgramsForFPGAsAreMountedToBeRead(t *testing.T) {
	const programs = `config.devices=[{"family":"gpu"},{"family":"fpga","programs":{"folder":"/srv/fpga","allow":[{"namespaces":["*"]}]}}]`
	for devices, want := range map[string]string{
		`config.devices=[]`:                  "",
		`config.devices=[{"family":"fpga"}]`: "",
		programs:                             "/srv/fpga on /host/srv/fpga",
	} {
		pod := only[*appsv1.DaemonSet](t, render(t, "--set-json", devices)).Spec.Template.Spec
		var got string
		for _, v := range pod.Volumes {
			for _, m := range pod.Containers[0].VolumeMounts {
				if v.Name == "programs" && m.Name == v.Name {
					got = v.HostPath.Path + " on " + m.MountPath
					if !m.ReadOnly || m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationHostToContainer {
						t.Errorf("the mount is %+v", m)
					}
				}
			}
		}
		if got != want {
			t.Errorf("%s: programs are %q, want %q", devices, got, want)
		}
	}
}

// The default of Go's runtime is the number of the machine's CPUs.
func TestTheDaemonKeepsNoMemoryForEveryCPU(t *testing.T) {
	main := only[*appsv1.DaemonSet](t, render(t)).Spec.Template.Spec.Containers[0]
	if want := (corev1.EnvVar{Name: "GOMAXPROCS", Value: "4"}); !slices.Contains(main.Env, want) {
		t.Errorf("the environment %v does not have %v", main.Env, want)
	}
}

func TestPaths(t *testing.T) {
	pod := only[*appsv1.DaemonSet](t, render(t,
		"--set", "kubelet.rootDir=/data/kubelet", "--set", "nri.socket=/run/k3s/nri/nri.sock",
		"--set", "cdi.dir=/etc/cdi", "--set", "stateDir=/data/topolet",
	)).Spec.Template.Spec
	for _, want := range []string{
		"--kubelet-plugins-dir=/data/kubelet/plugins", "--kubelet-registry-dir=/data/kubelet/plugins_registry",
		"--pod-resources-socket=/data/kubelet/pod-resources/kubelet.sock",
		"--nri-socket=/run/k3s/nri/nri.sock", "--cdi-dir=/etc/cdi", "--state-dir=/data/topolet",
	} {
		if !slices.Contains(pod.Containers[0].Args, want) {
			t.Errorf("no argument %s in %q", want, pod.Containers[0].Args)
		}
	}
	// Every argument means the same path on the node and in the container.
	mounted := map[string]string{}
	for _, m := range pod.Containers[0].VolumeMounts {
		mounted[m.Name] = m.MountPath
	}
	for _, v := range pod.Volumes {
		if v.HostPath == nil || v.Name == "cgroup" || v.Name == "sys" || strings.HasPrefix(v.Name, "sys-") {
			continue
		}
		if mounted[v.Name] != v.HostPath.Path {
			t.Errorf("%s of the node is mounted at %s", v.HostPath.Path, mounted[v.Name])
		}
	}
	if mounted["nri"] != "/run/k3s/nri" {
		t.Errorf("NRI is mounted at %s, want the folder of the socket", mounted["nri"])
	}
}

func TestValues(t *testing.T) {
	objects := render(t,
		"--set", "image.repository=docker.io/topolet/topolet", "--set", "image.tag=test", "--set", "image.pullPolicy=Never",
		"--set-string", "config.reservedCPUs=0-1\\,8", "--set", "config.levels={socket}", "--set", "hostNetwork=true", "--set", "httpPort=19847",
		"--set", "kubernetesServiceHost=127.0.0.1", "--set", "kubernetesServicePort=6443",
		"--set", "logLevel=5", "--set", "maxUpdating=25%", "--set", "admission.claims=false",
		"--set", "seLinuxOptions.type=spc_t",
	)
	daemons := only[*appsv1.DaemonSet](t, objects)
	pod := daemons.Spec.Template.Spec
	main := pod.Containers[0]
	if main.Image != "docker.io/topolet/topolet:test" || main.ImagePullPolicy != corev1.PullNever {
		t.Errorf("image %s, %s", main.Image, main.ImagePullPolicy)
	}
	if !pod.HostNetwork || pod.DNSPolicy != corev1.DNSClusterFirstWithHostNet {
		t.Errorf("host network %v, DNS %s", pod.HostNetwork, pod.DNSPolicy)
	}
	for _, want := range []string{"--http-address=:19847", "-v=5"} {
		if !slices.Contains(main.Args, want) {
			t.Errorf("no argument %s in %q", want, main.Args)
		}
	}
	env := map[string]string{}
	for _, e := range main.Env {
		env[e.Name] = e.Value
	}
	if env["KUBERNETES_SERVICE_HOST"] != "127.0.0.1" || env["KUBERNETES_SERVICE_PORT"] != "6443" {
		t.Errorf("API server at %q", env)
	}
	config := only[*corev1.ConfigMap](t, objects).Data["config.yaml"]
	if want := "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ncpuRequests: Warn\ndevices: []\nenforcement: Auto\nlevels:\n- socket\n" +
		"listAttributes: false\nnodeAllocatable: false\nreservedCPUs: 0-1,8\nreservedMemory: \"\""; strings.TrimSpace(config) != want {
		t.Errorf("configuration\n%s\nwant\n%s", config, want)
	}
	policies := all[*admissionv1.ValidatingAdmissionPolicy](objects)
	if len(policies) != 1 || policies[0].Name != "topolet-resourceslices" {
		t.Errorf("%d policies where the one for claims is off", len(policies))
	}
}

func TestTheNewDaemonStandsByBeforeTheOldOneEndsWhereBothFit(t *testing.T) {
	for _, tc := range []struct {
		name               string
		args               []string
		surge, unavailable string
	}{
		{"by default", nil, "1", "0"},
		{"several nodes at a time", []string{"--set", "maxUpdating=25%"}, "25%", "0"},
		{"with the node's port", []string{"--set", "hostNetwork=true", "--set", "maxUpdating=3"}, "0", "3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			daemons := only[*appsv1.DaemonSet](t, render(t, tc.args...))
			update := daemons.Spec.UpdateStrategy.RollingUpdate
			if update.MaxSurge.String() != tc.surge || update.MaxUnavailable.String() != tc.unavailable {
				t.Errorf("maxSurge %s, maxUnavailable %s; want %s and %s", update.MaxSurge, update.MaxUnavailable, tc.surge, tc.unavailable)
			}
			for _, port := range daemons.Spec.Template.Spec.Containers[0].Ports {
				if port.HostPort != 0 {
					t.Errorf("port %s is one of the node: two daemons do not fit", port.Name)
				}
			}
		})
	}
}

// The pods restart when what they read at their start has changed.
func TestConfigurationRestarts(t *testing.T) {
	checksum := func(args ...string) string {
		return only[*appsv1.DaemonSet](t, render(t, args...)).Spec.Template.Annotations["topolet.dev/config-checksum"]
	}
	before, after := checksum(), checksum("--set-string", "config.reservedCPUs=0")
	if before == "" || before == after {
		t.Errorf("checksum %q before and %q after a change", before, after)
	}
}

func TestDeviceClasses(t *testing.T) {
	got := map[string]string{}
	for _, class := range all[*resourcev1.DeviceClass](render(t, "--set", "config.levels={l3,machine}")) {
		got[class.Name] = class.Spec.Selectors[0].CEL.Expression
	}
	const level = `device.driver == "topolet.dev" && device.attributes["topolet.dev"].?level.orValue("") == `
	const isolated = `device.attributes["topolet.dev"].?isolated.orValue(false)`
	want := map[string]string{
		"cpu.topolet.dev":          level + `"numa" && !` + isolated,
		"cpu-isolated.topolet.dev": level + `"numa" && ` + isolated,
		"memory.topolet.dev":       `device.driver == "topolet.dev" && device.attributes["topolet.dev"].?family.orValue("") == "memory"`,
		"cpu-l3.topolet.dev":       level + `"l3" && !` + isolated,
		"cpu-machine.topolet.dev":  level + `"machine" && !` + isolated,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("selectors (-want +got):\n%s", diff)
	}
}

func TestSchemaRefuses(t *testing.T) {
	for _, c := range []struct {
		set   []string
		words []string // of the error: the value's name, and what is wrong with it
	}{
		{[]string{"--set", "nosuch=1"}, []string{"nosuch", "not allowed"}},
		{[]string{"--set", "image.tagg=1"}, []string{"/image", "tagg", "not allowed"}},
		{[]string{"--set-json", `config.devices=[{"family":"fpga","programs":{"folder":"srv","allow":[{"namespaces":["*"]}]}}]`}, []string{"/config/devices/0/programs/folder", "pattern"}},
		{[]string{"--set-json", `config.devices=[{"family":"fpga","programs":{"folder":"/srv"}}]`}, []string{"/config/devices/0/programs", "allow"}},
		{[]string{"--set-json", `config.devices=[{"family":"fpga","programs":{"folder":"/srv","allow":[{}]}}]`}, []string{"/config/devices/0/programs/allow/0", "namespaces"}},
		{[]string{"--set-json", `config.devices=[{"family":"gaudi","networkHook":"hook"}]`}, []string{"/config/devices/0/networkHook", "pattern"}},
		{[]string{"--set", "config.levels={numa}"}, []string{"/config/levels/0", "must be one of"}},
		{[]string{"--set", "config.levels={l3,l3}"}, []string{"/config/levels", "equal"}},
		{[]string{"--set", "image.tag=1"}, []string{"/image/tag", "want string"}},
		{[]string{"--set", "image.repository="}, []string{"/image/repository", "minLength"}},
		{[]string{"--set", "image.pullPolicy=Sometimes"}, []string{"/image/pullPolicy", "must be one of"}},
		{[]string{"--set", "config.reserved=0"}, []string{"/config", "reserved", "not allowed"}},
		{[]string{"--set-string", "config.reservedCPUs=0-"}, []string{"/config/reservedCPUs", "does not match pattern"}},
		{[]string{"--set", "config.reservedCPUs=0"}, []string{"/config/reservedCPUs", "want string"}},
		{[]string{"--set", "logLevel=high"}, []string{"/logLevel", "want integer"}},
		{[]string{"--set", "httpPort=70000"}, []string{"/httpPort", "maximum"}},
		{[]string{"--set", "kubelet.rootDir=var/lib/kubelet"}, []string{"/kubelet/rootDir", "does not match pattern"}},
		{[]string{"--set", "kubelet.rootDir=/var/lib/kubelet/"}, []string{"/kubelet/rootDir", "does not match pattern"}},
		{[]string{"--set", "nri.socket=/nri.sock"}, []string{"/nri/socket", "does not match pattern"}},
		{[]string{"--set-string", "hostNetwork=true"}, []string{"/hostNetwork", "want boolean"}},
		{[]string{"--set", "maxUpdating=0"}, []string{"/maxUpdating", "minimum"}},
		{[]string{"--set", "maxUpdating=some"}, []string{"/maxUpdating", "does not match pattern"}},
		{[]string{"--set", "tolerations=all"}, []string{"/tolerations", "want array"}},
		{[]string{"--set-string", "admission.claims=off"}, []string{"/admission/claims", "want boolean"}},
		{[]string{"--set-string", "gpuMemory=true"}, []string{"/gpuMemory", "want boolean"}},
	} {
		t.Run(fmt.Sprint(c.set[1]), func(t *testing.T) {
			out, err := helm(t, append([]string{"template", "topolet", chart}, c.set...)...)
			if err == nil {
				t.Fatalf("accepted:\n%s", out)
			}
			for _, w := range c.words {
				if !strings.Contains(strings.ReplaceAll(err.Error(), "'", ""), w) {
					t.Errorf("the error does not say %q: %v", w, err)
				}
			}
		})
	}
}

// A family's classes are there if the family is published, and those that answer old
// resource names if migration is on.
func TestClassesOfDevices(t *testing.T) {
	names := func(args ...string) (names []string, resources map[string]string) {
		resources = map[string]string{}
		for _, class := range all[*resourcev1.DeviceClass](render(t, args...)) {
			if strings.HasPrefix(class.Name, "cpu") || class.Name == "memory.topolet.dev" {
				continue
			}
			names = append(names, class.Name)
			for _, selector := range class.Spec.Selectors {
				if text := selector.CEL.Expression; !strings.Contains(text, "attributes[\"topolet.dev\"].family ==") || strings.Contains(text, " a.") || strings.Contains(text, "!a.") {
					t.Errorf("class %s selects %s", class.Name, text)
				}
			}
			if name := ptr.Deref(class.Spec.ExtendedResourceName, ""); name != "" {
				if other, taken := resources[name]; taken {
					t.Errorf("classes %s and %s both answer %s", class.Name, other, name)
				}
				resources[name] = class.Name
			}
		}
		slices.Sort(names)
		if unique := slices.Compact(slices.Clone(names)); len(unique) != len(names) {
			t.Errorf("classes %v have the same name", names)
		}
		return names, resources
	}
	npu := `config.devices=[{"family":"npu","shares":2}]`
	if got, _ := names(); got != nil {
		t.Errorf("classes %v without a family", got)
	}
	got, resources := names("--set-json", npu)
	if want := []string{"npu-vfio.topolet.dev", "npu.topolet.dev"}; !slices.Equal(got, want) || len(resources) > 0 {
		t.Errorf("classes %v, want %v; answer %v", got, want, resources)
	}
	mounted := func(args ...string) bool {
		return slices.ContainsFunc(only[*appsv1.DaemonSet](t, render(t, args...)).Spec.Template.Spec.Containers[0].VolumeMounts,
			func(m corev1.VolumeMount) bool { return m.MountPath == "/host/proc" && m.ReadOnly })
	}
	if mounted() || !mounted("--set-json", npu) {
		t.Error("the host's proc is not mounted exactly where devices are published")
	}
	_, resources = names("--set-json", npu, "--set", "migration=true")
	if diff := cmp.Diff(map[string]string{"npu.intel.com/accel": "npu-intel-com-accel.topolet.dev"}, resources); diff != "" {
		t.Errorf("resources (-want +got):\n%s", diff)
	}
	every := `config.devices=[`
	for i, family := range []string{"gpu", "gaudi", "qat", "dsa", "iaa", "dlb", "fpga", "sgx", "npu", "nic", "nvme", "pci"} {
		if i > 0 {
			every += ","
		}
		every += fmt.Sprintf(`{"family":%q}`, family)
	}
	if got, resources = names("--set-json", every+"]", "--set", "migration=true"); len(got) < 40 || len(resources) < 20 {
		t.Errorf("%d classes, %d of them for resources", len(got), len(resources))
	}
}
