//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/topolet/topolet/test/harness"
)

// partitionsOnKernel runs the tests of the package nriplugin/partition on the machine,
// which has the kernel that they need. Each is called for itself.
func partitionsOnKernel(t *testing.T, node harness.Node) {
	program := filepath.Join(t.TempDir(), "partition.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-C", cluster.Source, "-c", "-trimpath", "-ldflags", "-s -w", "-o", program, "./nriplugin/partition")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, err := exec.CommandContext(t.Context(), program, "-test.list", "^TestKernel").Output()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const inside = "/tmp/partition.test"
	if err := node.WriteFile(inside, string(data)); err != nil {
		t.Fatal(err)
	}
	tests := strings.Fields(string(names))
	if len(tests) == 0 {
		t.Fatal("there are no tests for a kernel")
	}
	for _, name := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := node.Run(t.Context(), inside, "-test.v", "-test.run", "^"+name+"$")
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out)
			if strings.Contains(out, "--- SKIP") {
				t.Error("it did not run")
			}
		})
	}
}
