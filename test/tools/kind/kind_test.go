// Package kind_test tests deploy/kind as far as that goes without containers.
package kind_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/kind/pkg/cluster"
)

const (
	config = "../../../deploy/kind/cluster.yaml"
	up     = "../../../deploy/kind/up.sh"
)

// fakeDocker puts a docker into an otherwise empty PATH. It has the image, has no
// containers, and records each command; it fails when a container is to run.
func fakeDocker(t *testing.T, script string) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "calls")
	text := "#!/bin/sh\necho \"$*\" >>" + log + "\n" + script
	if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return func() string {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
}

// kind itself reads, defaults and validates the file and asks for its three
// nodes. What then happens inside the nodes is not shown here.
func TestKindAcceptsConfiguration(t *testing.T) {
	calls := fakeDocker(t, `
case "$1" in
info) echo '{"CgroupVersion":"2","CgroupDriver":"systemd"}' ;;
ps | inspect) ;;
network) [ "$2" = ls ] && echo 0123456789ab ;;
run) echo "no containers here" >&2; exit 1 ;;
esac
`)
	err := cluster.NewProvider(cluster.ProviderWithDocker()).Create("trial", cluster.CreateWithConfigFile(config),
		cluster.CreateWithKubeconfigPath(filepath.Join(t.TempDir(), "kubeconfig")))
	if err == nil || !strings.Contains(err.Error(), "docker run") {
		t.Fatalf("kind stopped with %v, want the first `docker run`", err)
	}
	// kind gives up with the first node that fails, while it still asks for the others.
	want := []string{"control-plane", "worker", "worker"}
	var roles []string
	for deadline := time.Now().Add(10 * time.Second); len(roles) < len(want) && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		roles = rolesOf(calls())
	}
	if !slices.Equal(roles, want) {
		t.Errorf("asked for nodes of roles %q, want %q:\n%s", roles, want, calls())
	}
}

// rolesOf returns the sorted roles of the nodes that docker was to run.
func rolesOf(calls string) []string {
	var roles []string
	for line := range strings.Lines(calls) {
		if _, rest, found := strings.Cut(line, "--label io.x-k8s.kind.role="); found && strings.HasPrefix(line, "run ") {
			role, _, _ := strings.Cut(rest, " ")
			roles = append(roles, role)
		}
	}
	slices.Sort(roles)
	return roles
}

func TestKindRefusesUnknownFields(t *testing.T) {
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(string(text), "containerdConfigPatches:", "containerdConfigPatch:", 1)
	err = cluster.NewProvider(cluster.ProviderWithDocker()).Create("trial", cluster.CreateWithRawConfig([]byte(wrong)))
	if err == nil || !strings.Contains(err.Error(), "containerdConfigPatch not found") {
		t.Fatalf("kind stopped with %v, want the unknown field", err)
	}
}

// For each version of containerd's configuration there is a patch that switches
// CDI and NRI on, under that version's section names.
func TestContainerdPatches(t *testing.T) {
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	var c v1alpha4.Cluster
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	var roles []v1alpha4.NodeRole
	for _, n := range c.Nodes {
		roles = append(roles, n.Role)
	}
	if len(roles) != 3 || roles[0] != v1alpha4.ControlPlaneRole || roles[1] != v1alpha4.WorkerRole || roles[2] != v1alpha4.WorkerRole {
		t.Errorf("nodes %v, want a control plane and two workers", roles)
	}

	type plugin struct {
		EnableCDI bool     `toml:"enable_cdi"`
		SpecDirs  []string `toml:"cdi_spec_dirs"`
		Disable   *bool    `toml:"disable"`
		Socket    string   `toml:"socket_path"`
	}
	cri := map[int]string{2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
	for _, patch := range c.ContainerdConfigPatches {
		var parsed struct {
			Version int               `toml:"version"`
			Plugins map[string]plugin `toml:"plugins"`
		}
		read, err := toml.Decode(patch, &parsed)
		if err != nil {
			t.Fatal(err)
		}
		if unknown := read.Undecoded(); len(unknown) > 0 {
			t.Errorf("version %d: unexpected %v", parsed.Version, unknown)
		}
		section, wanted := cri[parsed.Version]
		if !wanted {
			t.Errorf("version %d is none of containerd's, or twice", parsed.Version)
			continue
		}
		delete(cri, parsed.Version)
		if !parsed.Plugins[section].EnableCDI {
			t.Errorf("version %d: CDI is not on", parsed.Version)
		}
		if nri := parsed.Plugins["io.containerd.nri.v1.nri"]; nri.Disable == nil || *nri.Disable || nri.Socket != "/var/run/nri/nri.sock" {
			t.Errorf("version %d: NRI is not on at the chart's default path", parsed.Version)
		}
	}
	if len(cri) > 0 {
		t.Errorf("no patch for the versions in %v", cri)
	}
}

// Without a container engine the script ends at once and says what to do.
func TestUpSaysWhatIsMissing(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	timeout, err := exec.LookPath("timeout")
	if err != nil {
		t.Fatal(err)
	}
	run := func(t *testing.T) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bash, up)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Fatalf("succeeded:\n%s", out)
		}
		return string(out)
	}
	t.Run("nothing installed", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		if out := run(t); !strings.Contains(out, "Neither docker nor podman is installed. Install one") {
			t.Errorf("said:\n%s", out)
		}
	})
	t.Run("engine not running", func(t *testing.T) {
		calls := fakeDocker(t, "exit 1\n")
		if err := os.Symlink(timeout, filepath.Join(os.Getenv("PATH"), "timeout")); err != nil {
			t.Fatal(err)
		}
		if out := run(t); !strings.Contains(out, "No container engine answers (docker: 'docker info' fails). Start it") {
			t.Errorf("said:\n%s", out)
		}
		if got := calls(); got != "info\n" {
			t.Errorf("called docker with %q, want nothing beyond info", got)
		}
	})
}
