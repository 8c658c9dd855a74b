package draplugin

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	resourceapi "k8s.io/api/resource/v1"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/draplugin/fpgaprogram/fpgatest"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/fpga"
)

const (
	fpgaInterface = "69528db6eb31577a8c3668f9faa081f6"
	fpgaBefore    = "d8424dc4a4a3c413f89e433683f9040b"
	fpgaWanted    = "f7df405cbd7acf7222f144b0b93acd18"
	fpgaFolder    = "/srv/fpga"
	fpgaPort0     = "fpga-0000-5e-00-0-port0"
	fpgaPort1     = "fpga-0000-5e-00-0-port1"
)

// fpgaRig is a driver on a host with a card of two ports and a program.
type fpgaRig struct {
	*rig
	card  *fpgatest.Card
	host  *devicetest.Host
	files *topology.Root
	rules v1alpha1.Programs
}

func newFPGARig(t *testing.T, stack string) *fpgaRig {
	t.Helper()
	h := devicetest.New(t)
	r := &fpgaRig{
		card: fpgatest.New(t, h, stack, "0000:5e:00.0", fpgaInterface, fpgaBefore, 2), host: h,
		rules: v1alpha1.Programs{Folder: fpgaFolder, Allow: []v1alpha1.ProgramRule{{Namespaces: []string{"default"}, AFUIDs: []string{fpgaWanted}}}},
	}
	fpgatest.Program(t, filepath.Join(h.Dir, fpgaFolder), fpgaInterface, fpgaWanted, "first")
	var err error
	if r.files, err = topology.OpenRoot(h.Dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.files.Close() }) //nolint:errcheck // only read
	m, dir := h.Open().Machine, t.TempDir()
	r.rig = &rig{
		machine: m, policy: allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, side: &side{}, notes: &notes{},
		store: &store{FileStore: allocator.FileStore{Path: filepath.Join(dir, "checkpoint.json")}}, cdiDir: filepath.Join(dir, "cdi"),
		more: func(o *Options) {
			o.Hook = filepath.Join(dir, "hook")
			o.Programs = Programs{Rules: r.rules, Root: h.Dir}
		},
	}
	r.restart(t)
	return r
}

// restart makes a driver as a new process does.
func (r *fpgaRig) restart(t *testing.T) {
	t.Helper()
	r.start(t)
	r.look(t)
	if err := r.cdi.reset(r.ledger.Grants()); err != nil {
		t.Fatal(err)
	}
}

// look has the ledger know the devices as they are now.
func (r *fpgaRig) look(t *testing.T) {
	t.Helper()
	devices, _ := device.Discover(r.host.Open(), fpga.Family{})
	r.ledger.ReplaceDevices(devices)
}

// parameters are those of an FPGAConfig with some fields.
func parameters(fields string) string {
	return `{"apiVersion":"topolet.dev/v1alpha1","kind":"FPGAConfig"` + fields + `}`
}

func programmed(afuID string, names ...string) *resourceapi.ResourceClaim {
	return configured(handoverClaim(names...), resourceapi.AllocationConfigSourceClaim, parameters(fmt.Sprintf(`,"afuID":%q`, afuID)))
}

// container is what a runtime that has just started makes of a container with all devices
// of the claim: it injects what the CDI specs say, and runs the hooks.
func (r *fpgaRig) container(t *testing.T, ids []string) (*specs.Spec, error) {
	t.Helper()
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	spec := &specs.Spec{Linux: &specs.Linux{}}
	if unresolved, err := cache.InjectDevices(spec, ids...); err != nil {
		t.Fatalf("%v does not resolve: %v", unresolved, err)
	}
	if spec.Hooks == nil {
		return spec, nil
	}
	for _, hook := range spec.Hooks.CreateRuntime {
		if hook.Path != r.opts.Hook || hook.Args[1] != fpgaprogram.Command || *hook.Timeout != 110 {
			t.Fatalf("hook %+v", hook)
		}
		job, err := fpgaprogram.ParseJob(hook.Args[2:])
		if err != nil {
			t.Fatal(err)
		}
		programmer := fpgaprogram.Programmer{Files: r.files, Root: r.host.Dir, Kernel: r.card, Patience: time.Second}
		if err := programmer.Run(t.Context(), job); err != nil {
			return spec, err
		}
	}
	return spec, nil
}

func (r *fpgaRig) prepared(t *testing.T, claim *resourceapi.ResourceClaim) []string {
	t.Helper()
	var ids []string
	for _, d := range r.mustPrepare(t, claim) {
		ids = append(ids, d.CDIDeviceIDs...)
	}
	return ids
}

func paths(spec *specs.Spec) []string {
	var list []string
	for _, d := range spec.Linux.Devices {
		list = append(list, d.Path)
	}
	slices.Sort(list)
	return list
}

func TestAContainerStartsWithTheFunctionThatItsClaimAsksFor(t *testing.T) {
	for _, stack := range []string{"dfl", "opae"} {
		t.Run(stack, func(t *testing.T) {
			r := newFPGARig(t, stack)
			claim := programmed("F7DF405C-BD7A-CF72-22F1-44B0B93ACD18", fpgaPort0, fpgaPort1)
			ids := r.prepared(t, claim)
			if events := r.card.Events(); len(events) > 0 {
				t.Errorf("preparing programs %q", events)
			}
			spec, err := r.container(t, ids)
			if err != nil {
				t.Fatal(err)
			}
			if got := paths(spec); len(got) != 2 || strings.Contains(strings.Join(got, " "), "fme") {
				t.Errorf("the container has nodes %q", got)
			}
			once := []string{"port0 first", "port1 first"}
			if diff := cmp.Diff(once, r.card.Events()); diff != "" || r.card.AFU(0) != fpgaWanted || r.card.AFU(1) != fpgaWanted {
				t.Errorf("programs -want +got:\n%s", diff)
			}

			// The container starts again, another one of the claim comes, topolet restarts, and the
			// kernel counts in another way.
			again := func() {
				t.Helper()
				if _, err := r.container(t, ids); err != nil {
					t.Fatal(err)
				}
			}
			again()
			r.look(t)
			r.prepared(t, claim)
			again()
			r.restart(t)
			again()
			r.card.Renumber(4)
			again()
			if diff := cmp.Diff(once, r.card.Events()); diff != "" {
				t.Errorf("programs -want +got:\n%s", diff)
			}

			// Somebody has programmed something else meanwhile.
			r.card.Have(1, fpgaBefore)
			again()
			if diff := cmp.Diff([]string{"port0 first", "port1 first", "port1 first"}, r.card.Events()); diff != "" {
				t.Errorf("programs -want +got:\n%s", diff)
			}
			if err := r.unprepare(t, "c"); err != nil {
				t.Fatal(err)
			}
			if left, err := filepath.Glob(filepath.Join(r.cdiDir, "*")); err != nil || len(left) > 0 {
				t.Errorf("CDI specs %v are left (%v)", left, err)
			}
		})
	}
}

func TestAClaimThatAsksForNoFunctionGetsThePortAsItIs(t *testing.T) {
	for name, claim := range map[string]*resourceapi.ResourceClaim{
		"without parameters":  handoverClaim(fpgaPort0),
		"with empty ones":     configured(handoverClaim(fpgaPort0), resourceapi.AllocationConfigSourceClaim, parameters("")),
		"with the empty name": configured(handoverClaim(fpgaPort0), resourceapi.AllocationConfigSourceClaim, parameters(`,"afuID":""`)),
	} {
		t.Run(name, func(t *testing.T) {
			r := newFPGARig(t, "dfl")
			r.rules = v1alpha1.Programs{}
			r.restart(t)
			spec, err := r.container(t, r.prepared(t, claim))
			if err != nil || spec.Hooks != nil || len(r.card.Events()) > 0 {
				t.Errorf("hooks %+v, programs %q, %v", spec.Hooks, r.card.Events(), err)
			}
			if diff := cmp.Diff([]string{"/dev/dfl-port.0"}, paths(spec)); diff != "" {
				t.Errorf("nodes -want +got:\n%s", diff)
			}
		})
	}
}

func TestAContainerWhosePortCannotBeProgrammedDoesNotStart(t *testing.T) {
	r := newFPGARig(t, "dfl")
	ids := r.prepared(t, programmed(fpgaWanted, fpgaPort0))
	r.card.Breaks = true
	if _, err := r.container(t, ids); err == nil || !strings.Contains(err.Error(), fpgaPort0+" does not get function "+fpgaWanted) {
		t.Errorf("it starts: %v", err)
	}
	r.card.Breaks = false
	if _, err := r.container(t, ids); err != nil || r.card.AFU(0) != fpgaWanted {
		t.Errorf("it does not start later: %v", err)
	}
}

// Who takes the folder out of the configuration ends programming, and not what runs.
func TestWithoutTheFolderOnlyWhatIsProgrammedStarts(t *testing.T) {
	r := newFPGARig(t, "dfl")
	ids := r.prepared(t, programmed(fpgaWanted, fpgaPort0))
	if _, err := r.container(t, ids); err != nil {
		t.Fatal(err)
	}
	r.rules = v1alpha1.Programs{}
	r.restart(t)
	if _, err := r.container(t, ids); err != nil {
		t.Error(err)
	}
	r.card.Have(0, fpgaBefore)
	if _, err := r.container(t, ids); err == nil || !strings.Contains(err.Error(), "the node has no folder of programs any more") {
		t.Errorf("got %v", err)
	}
	if events := r.card.Events(); len(events) != 1 {
		t.Errorf("programs %q", events)
	}
}

func TestTheEnginesNodeIsForWhomTheNodeTrusts(t *testing.T) {
	r := newFPGARig(t, "dfl")
	claim := configured(handoverClaim(fpgaPort0), resourceapi.AllocationConfigSourceClaim, parameters(`,"management":true`))
	const said = `FPGAConfig field management: "true" is not valid: leave it out, or have it allowed for namespace default`
	if err := r.prepare(t, claim).Err; err == nil || !strings.Contains(err.Error(), said) {
		t.Fatalf("got %v", err)
	}
	r.rules.Allow[0].Management = true
	spec, err := r.container(t, r.prepared(t, claim))
	if err != nil || spec.Hooks != nil {
		t.Errorf("hooks %+v, %v", spec.Hooks, err)
	}
	if diff := cmp.Diff([]string{"/dev/dfl-fme.0", "/dev/dfl-port.0"}, paths(spec)); diff != "" {
		t.Errorf("nodes -want +got:\n%s", diff)
	}
}

func TestAFunctionThatThePortCannotHaveIsRefusedBeforeAnythingIsGranted(t *testing.T) {
	const remote = "ce48969398f05f33946d560708be108a"
	for name, test := range map[string]struct {
		change func(*testing.T, *fpgaRig)
		claim  *resourceapi.ResourceClaim
		said   string
	}{
		"nothing is configured": {change: func(_ *testing.T, r *fpgaRig) { r.rules = v1alpha1.Programs{} },
			said: `for request "r0": FPGAConfig field afuID: "` + fpgaWanted + `" is not valid: leave it out, or have programs configured`},
		"the namespace is another": {change: func(_ *testing.T, r *fpgaRig) { r.rules.Allow[0].Namespaces = []string{"kube-system"} },
			said: "have it allowed for namespace default in this node's configuration (devices[].programs.allow)"},
		"the function is another": {claim: programmed(remote, fpgaPort0),
			said: `FPGAConfig field afuID: "` + remote + `" is not valid: leave it out, or have it allowed`},
		"there is no program": {change: func(_ *testing.T, r *fpgaRig) { r.host.Remove(fpgaFolder) },
			said: fpgaPort0 + " cannot get function " + fpgaWanted + ": " + fpgaFolder + ": opening the folder of programs"},
		"the program is for another interface": {change: func(t *testing.T, r *fpgaRig) {
			r.host.File(fpgaFolder+"/"+fpgaInterface+"/"+fpgaWanted+".gbs", string(fpgatest.GBS(remote, fpgaWanted, "")))
		}, said: "it is for cards with interface " + remote},
		"the program brings something else": {change: func(t *testing.T, r *fpgaRig) {
			r.host.File(fpgaFolder+"/"+fpgaInterface+"/"+fpgaWanted+".gbs", string(fpgatest.GBS(fpgaInterface, remote, "")))
		}, said: "it brings function " + remote},
		"the port cannot be programmed": {change: func(_ *testing.T, r *fpgaRig) {
			r.host.Remove("/sys/devices/pci0000:5d/0000:5e:00.0/fpga_region/region0/dfl-fme.0/dfl-fme-region.1")
		}, said: "select devices whose attribute topolet.dev/programmable is true: that of " + fpgaPort0 + " is not at the moment"},
		"the claim is to look only": {claim: func() *resourceapi.ResourceClaim {
			claim := programmed(fpgaWanted, fpgaPort0)
			admin := true
			claim.Status.Allocation.Devices.Results[0].AdminAccess = &admin
			return claim
		}(), said: "leave it out: with adminAccess"},
		"management as well, which is not allowed": {
			claim: configured(handoverClaim(fpgaPort0), resourceapi.AllocationConfigSourceClaim, parameters(`,"management":true,"afuID":"`+fpgaWanted+`"`)),
			said:  `FPGAConfig field management: "true" is not valid`,
		},
		"the monitor device": {claim: programmed(fpgaWanted, "fpga-0000-5e-00-0-monitor"), said: "fpga-0000-5e-00-0-monitor is not at the moment"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newFPGARig(t, "dfl")
			if test.change != nil {
				test.change(t, r)
			}
			r.restart(t)
			claim := test.claim
			if claim == nil {
				claim = programmed(fpgaWanted, fpgaPort0)
			}
			err := r.prepare(t, claim).Err
			if err == nil || !strings.Contains(err.Error(), test.said) || !strings.HasPrefix(err.Error(), "claim default/claim-c: ") || strings.Contains(err.Error(), r.host.Dir) {
				t.Errorf("got %v, want %q", err, test.said)
			}
			if disk := r.disk(t); len(disk) > 0 {
				t.Errorf("something is left: %v", disk)
			}
		})
	}
}

// A port that has the function needs no program.
func TestAPortThatHasTheFunctionIsGrantedWithoutAProgram(t *testing.T) {
	r := newFPGARig(t, "dfl")
	r.card.Have(0, fpgaWanted)
	r.host.Remove(fpgaFolder)
	r.restart(t)
	if _, err := r.container(t, r.prepared(t, programmed(fpgaWanted, fpgaPort0))); err != nil {
		t.Error(err)
	}
}

func TestTheWorkloadIsToldTheFunctionThatItGets(t *testing.T) {
	r := newFPGARig(t, "dfl")
	devices := r.mustPrepare(t, programmed(fpgaWanted, fpgaPort0))
	if got := devices[0].Metadata.Attributes["topolet.dev/afuID"].StringValue; got == nil || *got != fpgaWanted {
		t.Errorf("it is told %v", got)
	}
}

func TestParametersOfFPGAsAreForFPGAs(t *testing.T) {
	if _, err := rolesOf("gpu-0000-3a-00-0", v1alpha1.FPGAConfig{Type: v1alpha1.Type{Kind: "FPGAConfig"}}); err == nil || !strings.Contains(err.Error(), "it is for devices of fpga") {
		t.Error(err)
	}
}
