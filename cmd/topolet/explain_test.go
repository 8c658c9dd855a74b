package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
)

const twoCPUs = `apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: two}
spec:
  devices:
    requests:
      - name: cpus
        exactly:
          deviceClassName: cpu.topolet.dev
          capacity: {requests: {topolet.dev/cpus: "2"}}
`

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestExplain(t *testing.T) {
	claim := write(t, "claim.yaml", twoCPUs)
	// Cores 0,4 and 1,5 are on node 0, of which the first is reserved.
	out, err := execute("explain", claim, "--root", machine(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"8 CPUs on 2 NUMA nodes; reserved: 0,4", "claim default/two fits", "2 CPUs of numa-0", "1,5"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in\n%s", part, out)
		}
	}
	config := write(t, "config.yaml", "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\nreservedCPUs: 1,5\n")
	if out, err = execute("explain", claim, "--root", machine(t), "--config", config); err != nil || !strings.Contains(out, "0,4") {
		t.Errorf("with CPUs 1,5 reserved: %v\n%s", err, out)
	}
}

func TestExplainBesideWhatIsHeld(t *testing.T) {
	store := allocator.FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	var parts []allocator.Part
	for domain, cpus := range map[string]topology.CPUSet{"numa-0": topology.NewCPUSet(1, 5), "numa-1": topology.NewCPUSet(2, 3, 6, 7)} {
		parts = append(parts, allocator.Part{Request: allocator.Request{Name: "cpus", Domain: domain, Count: cpus.Size()}, CPUs: cpus})
	}
	if err := store.Save([]allocator.Grant{{Claim: allocator.Claim{UID: "u", Namespace: "prod", Name: "db"}, Parts: parts}}); err != nil {
		t.Fatal(err)
	}
	out, err := execute("explain", write(t, "claim.yaml", twoCPUs), "--root", machine(t), "--grants", store.Path)
	if err == nil || !strings.Contains(err.Error(), "1 of 1 claim would not be allocated") {
		t.Errorf("error %v", err)
	}
	for _, part := range []string{"held: 6 CPUs by 1 claim", "claim default/two does not fit", "numa-0", "0 of 2 CPUs free"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in\n%s", part, out)
		}
	}
}

func TestExplainAsJSON(t *testing.T) {
	out, err := execute("explain", write(t, "claim.yaml", twoCPUs), "--root", machine(t), "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Claims []struct {
			Name, Verdict string
			Requests      []struct{ Device, CPUs string }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Claims) != 1 || got.Claims[0].Verdict != "Fits" || got.Claims[0].Requests[0].CPUs != "1,5" {
		t.Errorf("got %+v", got)
	}
}

func TestExplainErrorsSayWhatToMend(t *testing.T) {
	dir, claim := t.TempDir(), write(t, "claim.yaml", twoCPUs)
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"no file":                      {nil, []string{"arg"}},
		"a file that does not exist":   {[]string{dir + "/none"}, []string{dir + "/none", "no such file"}},
		"a file with a mistake":        {[]string{write(t, "bad.yaml", strings.Replace(twoCPUs, "exactly", "exact", 1))}, []string{"bad.yaml, document 1", "spec.devices.requests[0].exact"}},
		"an unknown output":            {[]string{claim, "--output", "yaml"}, []string{"--output", `"yaml"`, "json, text"}},
		"a root without a machine":     {[]string{claim, "--root", dir}, []string{"--root", dir, "sys/devices/system/cpu"}},
		"grants that do not exist":     {[]string{claim, "--root", machine(t), "--grants", dir + "/g"}, []string{"--grants", dir + "/g", "no such file"}},
		"a configuration with mistake": {[]string{claim, "--root", machine(t), "--config", claim}, []string{"configuration file", claim, "Configuration"}},
		"slices that are none":         {[]string{claim, "--root", machine(t), "--slices", claim}, []string{"--slices", claim, "ResourceClaim two is no ResourceSlice"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := execute(append([]string{"explain"}, tc.args...)...)
			if err == nil || out != "" {
				t.Fatalf("error %v; printed:\n%s", err, out)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("the error has more than one line: %v", err)
			}
			for _, part := range tc.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		})
	}
}
