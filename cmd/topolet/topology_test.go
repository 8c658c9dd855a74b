package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

// execute runs the program as main does, and returns what it prints.
func execute(args ...string) (string, error) {
	cmd := newRootCommand()
	var out bytes.Buffer
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func machine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := topologytest.Write(dir, topologytest.Spec{Sockets: 2, CoresPerL3: 2, Threads: 2}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestTopologyIsATreeByDefault(t *testing.T) {
	out, err := execute("topology", "--root", machine(t))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out, "8 CPUs, 4 cores, 2 sockets, 2 NUMA nodes") {
		t.Errorf("got:\n%s", out)
	}
}

func TestTopologyAsJSON(t *testing.T) {
	out, err := execute("topology", "--root", machine(t), "--output", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		OnlineCPUs string `json:"onlineCPUs"`
		CPUs       []any  `json:"cpus"`
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if got.OnlineCPUs != "0-7" || len(got.CPUs) != 8 {
		t.Errorf("got %+v", got)
	}
}

func TestThePictureNamesWhoHoldsWhat(t *testing.T) {
	store := allocator.FileStore{Path: filepath.Join(t.TempDir(), "checkpoint.json")}
	grant := allocator.Grant{
		Claim: allocator.Claim{UID: "u", Namespace: "prod", Name: "database"},
		Parts: []allocator.Part{{
			Request: allocator.Request{Name: "cpus", Domain: "numa-0", Count: 2}, CPUs: topology.NewCPUSet(1, 5),
		}},
	}
	if err := store.Save([]allocator.Grant{grant}); err != nil {
		t.Fatal(err)
	}
	out, err := execute("topology", "--root", machine(t), "--output", "svg", "--grants", store.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"<svg", "prod/database", "CPU 5, held by prod/database", "shared pool"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q is not in the picture", part)
		}
	}
}

func TestTopologyErrorsSayWhatToMend(t *testing.T) {
	empty := t.TempDir()
	for name, tc := range map[string]struct {
		args []string
		want []string
	}{
		"an unknown output":           {[]string{"topology", "--output", "yaml"}, []string{"--output", `"yaml"`, "json, svg, tree"}},
		"a root that does not exist":  {[]string{"topology", "--root", empty + "/none"}, []string{"--root", empty + "/none", "no such file"}},
		"a root that is no machine's": {[]string{"topology", "--root", empty}, []string{"--root", empty, "sys/devices/system/cpu"}},
		"grants without a picture":    {[]string{"topology", "--grants", "g"}, []string{"--grants", "--output tree", "--output svg"}},
		"grants that do not exist":    {[]string{"topology", "--grants", empty + "/g", "--output", "svg", "--root", machine(t)}, []string{"--grants", empty + "/g", "no such file"}},
		"grants that are none":        {[]string{"topology", "--grants", empty, "--output", "svg", "--root", machine(t)}, []string{"--grants", empty}},
		"an argument too many":        {[]string{"topology", "cpu0"}, []string{"cpu0"}},
		"an unknown command":          {[]string{"topologies"}, []string{"topologies"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := execute(tc.args...)
			if err == nil {
				t.Fatalf("no error; printed:\n%s", out)
			}
			if out != "" {
				t.Errorf("printed beside the error:\n%s", out)
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
