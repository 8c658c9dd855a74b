package picture

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/topology"
)

var update = flag.Bool("update", false, "write the pictures in testdata anew")

func set(t *testing.T, list string) topology.CPUSet {
	t.Helper()
	s, err := topology.ParseCPUSet(list)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDraw(t *testing.T) {
	tests := map[string]struct {
		node, granted string
		palette       Palette
	}{
		"two-cpus":             {node: "0-1", granted: "1"},
		"two-cpus-coloured":    {node: "0-1", granted: "1", palette: Coloured()},
		"eight-cpus":           {node: "0-7", granted: "2-3"},
		"twelve-cpus":          {node: "0-11", granted: "1"},
		"sixteen-cpus":         {node: "0-15", granted: "3,11"},
		"not-all-online":       {node: "0,2-3,9", granted: "2"},
		"twenty-four-cpus":     {node: "0-23", granted: "3,15"},
		"wide":                 {node: "0-127", granted: "1,65"},
		"wide-and-alternating": {node: "0-255", granted: evenCPUs(256)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node, granted := set(t, test.node), set(t, test.granted)
			pool := node.Difference(granted)
			var out bytes.Buffer
			Draw(&out, test.palette, "during", node, []Row{
				{Name: "plain-pod", Cgroup: pool, Processes: pool},
				{Name: "one-cpu", Granted: granted, Cgroup: granted, Processes: granted},
				{Name: "late", Absent: "not there yet"},
			})
			if test.palette == (Palette{}) {
				for line := range strings.Lines(out.String()) {
					if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > Width {
						t.Errorf("%d columns: %s", n, line)
					}
				}
			}
			golden(t, name, out.Bytes())
		})
	}
}

// evenCPUs is the longest list that so many CPUs can have, half of it.
func evenCPUs(n int) string {
	var ids []int
	for id := 2; id < n/2; id += 2 {
		ids = append(ids, id)
	}
	return topology.NewCPUSet(ids...).String()
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got (go test -update writes it anew):\n%s", diff)
	}
}

// A CPU that only the cgroup or only the processes have must be seen.
func TestADifferenceIsDrawn(t *testing.T) {
	var out bytes.Buffer
	Draw(&out, Palette{}, "during", set(t, "0-1"), []Row{
		{Name: "one-cpu", Granted: set(t, "1"), Cgroup: set(t, "1"), Processes: set(t, "0-1")},
	})
	if row := strings.Split(out.String(), "\n")[1]; strings.Contains(row, dot) {
		t.Errorf("CPU 0 is not shown: %s", row)
	}
}

func TestPaletteFor(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if PaletteFor(file) != (Palette{}) {
		t.Error("colours in a file")
	}
	null, err := os.Open(os.DevNull) // a character device, as a terminal is
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if PaletteFor(null) != Coloured() {
		t.Error("no colours on a terminal")
	}
	t.Setenv("NO_COLOR", "1")
	if PaletteFor(null) != (Palette{}) {
		t.Error("colours in spite of NO_COLOR")
	}
}
