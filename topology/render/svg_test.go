package render_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/render"
	"github.com/topolet/topolet/topology/snapshot"
	"github.com/topolet/topolet/topology/topologytest"
)

// rectangle is one of the picture's, or the room that a text takes.
type rectangle struct {
	what       string
	x, y, w, h int
}

func (a rectangle) overlaps(b rectangle) bool {
	return a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h
}

func (a rectangle) inside(b rectangle) bool {
	return a.x >= b.x && a.y >= b.y && a.x+a.w <= b.x+b.w && a.y+a.h <= b.y+b.h
}

// drawing is what a reader of the XML finds in a picture.
type drawing struct {
	page rectangle
	// leaves are the boxes that have none in them, texts what is written.
	leaves, texts []rectangle
	ids           map[string]int
}

// leafClasses are those of boxes without boxes in them.
var leafClasses = map[string]bool{"cpu": true, "memory": true, "device": true, "kind": true, "note": true, "legend": true}

// readSVG also checks that each text is in its box, and each box in the one around.
func readSVG(t testing.TB, picture []byte) drawing {
	t.Helper()
	d := drawing{ids: map[string]int{}}
	var classes []string
	var around []rectangle
	decoder := xml.NewDecoder(bytes.NewReader(picture))
	attributes := map[string]string{}
	number := func(name string) int {
		n, err := strconv.Atoi(attributes[name])
		if err != nil {
			t.Fatalf("%s=%q", name, attributes[name])
		}
		return n
	}
	inText := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return d
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			clear(attributes)
			for _, a := range e.Attr {
				attributes[a.Name.Local] = a.Value
			}
			if id, ok := attributes["id"]; ok {
				d.ids[id]++
			}
			switch inText = e.Name.Local == "text"; e.Name.Local {
			case "svg":
				d.page = rectangle{"page", 0, 0, number("width"), number("height")}
				around = append(around, d.page)
			case "g":
				class, _, _ := strings.Cut(attributes["class"], " ")
				classes = append(classes, class)
				around = append(around, around[len(around)-1])
			case "rect":
				r := rectangle{classes[len(classes)-1], number("x"), number("y"), number("width"), number("height")}
				if !r.inside(around[len(around)-1]) {
					t.Fatalf("%v is not inside %v", r, around[len(around)-1])
				}
				if around[len(around)-1] = r; leafClasses[r.what] && attributes["class"] != "hatch" && !within(classes, "legend") {
					d.leaves = append(d.leaves, r)
				}
			}
		case xml.CharData:
			if !inText {
				continue
			}
			w := render.TextWidth(string(e))
			r := rectangle{string(e), number("x"), number("y") - 11, w, 14}
			if attributes["class"] == "mid" {
				r.x -= w / 2
			}
			d.texts = append(d.texts, r)
			if !r.inside(around[len(around)-1]) {
				t.Errorf("the text %v is not inside %v", r, around[len(around)-1])
			}
		case xml.EndElement:
			inText = false
			if e.Name.Local == "g" {
				classes, around = classes[:len(classes)-1], around[:len(around)-1]
			}
		}
	}
}

// within reports whether one of the groups around the last one has the class.
func within(classes []string, class string) bool {
	return slices.Contains(classes[:len(classes)-1], class)
}

// checkSVG checks what holds of every picture.
func checkSVG(t testing.TB, m *topology.Machine, holdings []render.Holding) {
	t.Helper()
	var picture, again bytes.Buffer
	if err := errors.Join(render.SVG(&picture, m, names, holdings), render.SVG(&again, m, names, holdings)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(picture.Bytes(), again.Bytes()) {
		t.Error("two pictures of one machine differ")
	}
	d := readSVG(t, picture.Bytes())
	for i, a := range d.leaves {
		if !a.inside(d.page) {
			t.Errorf("%v is outside the page %v", a, d.page)
		}
		for _, b := range d.leaves[:i] {
			if a.overlaps(b) {
				t.Fatalf("%v and %v overlap", a, b)
			}
		}
	}
	for i, a := range d.texts {
		for _, b := range d.texts[:i] {
			if a.overlaps(b) {
				t.Fatalf("the texts %v and %v overlap", a, b)
			}
		}
	}
	cpus, devices, nodes := 0, 0, 0
	for id, times := range d.ids {
		if times != 1 {
			t.Errorf("%s is there %d times", id, times)
		}
		switch {
		case strings.HasPrefix(id, "cpu-"):
			cpus++
		case strings.HasPrefix(id, "pci-"):
			devices++
		case strings.HasPrefix(id, "node-"):
			nodes++
		}
	}
	for _, c := range m.CPUs {
		if d.ids[fmt.Sprintf("cpu-%d", c.ID)] != 1 {
			t.Errorf("CPU %d is missing", c.ID)
		}
	}
	if cpus != len(m.CPUs) || devices != render.CountDevices(m) || nodes != len(m.NUMANodes) {
		t.Errorf("%d CPUs, %d devices and %d nodes; the machine has %d, %d and %d",
			cpus, devices, nodes, len(m.CPUs), render.CountDevices(m), len(m.NUMANodes))
	}
}

func theSameEachTime() *rand.Rand {
	return rand.New(rand.NewPCG(1, 2)) //nolint:gosec // G404: a failure must come again
}

// someHoldings share out some of the CPUs, core or no core.
func someHoldings(m *topology.Machine, random *rand.Rand) []render.Holding {
	ids := make([][]int, 1+random.IntN(40))
	for _, c := range m.CPUs {
		if i := random.IntN(2 * len(ids)); i < len(ids) {
			ids[i] = append(ids[i], c.ID)
		}
	}
	holdings := []render.Holding{{Name: "elsewhere/gone", CPUs: topology.NewCPUSet(9999)}}
	for i, cpus := range ids {
		name := "team/" + strings.Repeat("long-", random.IntN(30)) + strconv.Itoa(i)
		holdings = append(holdings, render.Holding{Name: name, CPUs: topology.NewCPUSet(cpus...)})
	}
	return holdings
}

func TestAPictureHasEverythingOnceAndNothingOnTopOfAnother(t *testing.T) {
	random := theSameEachTime()
	check := func(name string, m *topology.Machine) {
		t.Run(name, func(t *testing.T) {
			checkSVG(t, m, nil)
			checkSVG(t, m, []render.Holding{})
			checkSVG(t, m, someHoldings(m, random))
		})
	}
	for name, spec := range goldens {
		check(name, topologytest.New(spec))
	}
	check("a large machine", topologytest.New(topologytest.Spec{
		Sockets: 2, NUMAPerSocket: 4, L3PerNUMA: 4, CoresPerL3: 8, Threads: 2,
	}))
	for range 20 {
		n := func(most int) int { return 1 + random.IntN(most) }
		check("one of many", topologytest.New(topologytest.Spec{
			Sockets: n(3), NUMAPerSocket: n(3), L3PerNUMA: n(3), CoresPerL3: n(9), Threads: n(4),
			EfficiencyCoresPerL3: random.IntN(5), CoresPerL2: n(3), NoL3: n(2) == 1, MemoryOnly: []int{90},
			Isolated: "0", PCI: []topologytest.PCIRoot{
				{Functions: []topologytest.PCIFunction{topologytest.Port(topologytest.Switch(topologytest.GPU(), topologytest.NIC(4, 2)))}},
				{NUMANode: 90, Bus: 0x90, Functions: []topologytest.PCIFunction{topologytest.NVMe(), usb}},
			},
		}))
	}
	for name, tree := range map[string]*topologytest.Tree{
		"nothing but CPUs": topologytest.NewTree().File("sys/devices/system/cpu/online", "0-3,800-1200\n"),
		"groups that cross": topologytest.FS(topologytest.Spec{CoresPerL3: 8, NUMAPerSocket: 2}).
			File("sys/devices/system/node/node0/cpulist", "0-5\n").
			File("sys/devices/system/node/node1/cpulist", "4-11\n"),
	} {
		m, err := topology.Discover(tree)
		if err != nil {
			t.Fatal(err)
		}
		check(name, m)
	}
}

func TestAPictureOfARealMachineHasEverythingOnce(t *testing.T) {
	archives := topologytest.RealMachines()
	if len(archives) == 0 {
		t.Skip("no collection of real machines here")
	}
	for _, archive := range archives {
		t.Run(filepath.Base(archive), func(t *testing.T) {
			t.Parallel()
			root, err := snapshot.Open(archive)
			if err != nil {
				t.Fatal(err)
			}
			m, err := topology.Discover(root)
			if err != nil {
				t.Fatal(err)
			}
			checkSVG(t, m, someHoldings(m, theSameEachTime()))
		})
	}
}

func TestSVG(t *testing.T) {
	held := map[string][]render.Holding{"two-sockets": {
		{Name: "prod/database", CPUs: topology.NewCPUSet(1, 2, 17, 18)},
		{Name: "batch/render-farm", CPUs: topology.NewCPUSet(6, 8, 9, 22, 24, 25)},
	}}
	for _, name := range []string{"one-cpu", "two-sockets", "hybrid", "sparse-and-memory-only-nodes", "pci-devices"} {
		t.Run(name, func(t *testing.T) {
			var got bytes.Buffer
			if err := render.SVG(&got, topologytest.New(goldens[name]), names, held[name]); err != nil {
				t.Fatal(err)
			}
			compareFile(t, name+".svg", got.Bytes())
		})
	}
}

func TestTextFromOutsideStaysText(t *testing.T) {
	m := topologytest.New(topologytest.Spec{CoresPerL3: 2})
	for name, hostile := range map[string]string{
		"markup":       `</text><script>alert("1")</script>`,
		"an entity":    "&lol;",
		"no UTF-8":     "\xff\xfe\x00",
		"not Latin":    strings.Repeat("名前", 60),
		"a quote":      `" onload="x`,
		"nothing":      "",
		"control text": "a\x1b[31m\nb",
	} {
		t.Run(name, func(t *testing.T) {
			holdings := []render.Holding{{Name: hostile, CPUs: topology.NewCPUSet(1)}}
			checkSVG(t, m, holdings)
			var picture strings.Builder
			if err := render.SVG(&picture, m, nil, holdings); err != nil {
				t.Fatal(err)
			}
			for _, bad := range []string{"<script", `" onload`, "&lol;"} {
				if strings.Contains(picture.String(), bad) {
					t.Errorf("%q is in the picture", bad)
				}
			}
		})
	}
}

// compareFile compares with a file in testdata.
func compareFile(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: run the test with -update to write it", err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("differs from %s; run with -update and look at it", file)
	}
}
