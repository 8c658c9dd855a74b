package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/gpu"
	"github.com/topolet/topolet/topology/device/gpu/gputest"
)

// gpuRig is a host with a card of xe, one of i915, and a virtual function of the former.
// Their nodes are others in truth, behind which a kernel of the test has drivers.
type gpuRig struct {
	*devicetest.Host
	t              *testing.T
	kernel         *gputest.Kernel
	stateDir       string
	b580, a770, vf devicetest.Function
}

const (
	b580Name = "gpu-0000-37-01-0"
	a770Name = "gpu-0000-38-01-0"
)

func newGPURig(t *testing.T) *gpuRig {
	t.Helper()
	r := &gpuRig{
		Host: devicetest.New(t), t: t, kernel: gputest.NewKernel(t), stateDir: filepath.Join(t.TempDir(), "state"),
		b580: devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.0", Vendor: 0x8086, Device: 0xe20b, Class: 0x030000, Group: 42, Driver: "xe"},
		a770: devicetest.Function{Path: "/sys/devices/pci0000:38/0000:38:01.0", Vendor: 0x8086, Device: 0x56a0, Class: 0x030000, Group: 43, Driver: "i915"},
		vf:   devicetest.Function{Path: "/sys/devices/pci0000:37/0000:37:01.1", Vendor: 0x8086, Device: 0xe20b, Class: 0x030000, Group: 44, Driver: "xe"},
	}
	r.Add(r.b580, r.a770, r.vf)
	r.Virtual(r.b580, r.vf, 0)
	r.node(r.b580, "card0", gputest.Null)
	r.node(r.a770, "card1", gputest.Zero)
	r.node(r.vf, "card2", gputest.Full)
	r.kernel.Answer(gputest.Null, answerOf("xe", 12<<30))
	r.kernel.Answer(gputest.Zero, answerOf("i915", 16<<30))
	r.kernel.Answer(gputest.Full, answerOf("xe", 1<<30))
	return r
}

func answerOf(driver string, bytes uint64) []byte {
	return gputest.Answer(gputest.Headers[driver],
		gputest.Region{Class: gputest.System, Bytes: 64 << 30}, gputest.Region{Class: gputest.Local, Bytes: bytes})
}

// node gives a function a card, whose node is one that every host has.
func (r *gpuRig) node(f devicetest.Function, card string, is device.Node) {
	r.t.Helper()
	r.Char(f.Path, "drm/"+card, fmt.Sprintf("%d:%d", is.Major, is.Minor), "dri/"+card)
	name := filepath.Join(r.Dir, "dev/dri", card)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o750), os.RemoveAll(name), os.Symlink(is.Path, name)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *gpuRig) root() *topology.Root {
	r.t.Helper()
	root, err := topology.OpenRoot(r.Dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	return root
}

// prober is topolet probe's, but for the kernel.
func (r *gpuRig) prober() (p prober, out, problems *bytes.Buffer) {
	r.t.Helper()
	out, problems = &bytes.Buffer{}, &bytes.Buffer{}
	return prober{
		host: r.root(), query: gpu.Ioctl{Root: r.Dir, Call: r.kernel.Ioctl}, limit: probeLimit, out: out, problems: problems,
	}, out, problems
}

// probe asks the cards and keeps the answers. It returns what people are told.
func (r *gpuRig) probe() (out, problems string) {
	r.t.Helper()
	p, outText, problemsText := r.prober()
	answers, err := p.probe(r.t.Context())
	if err == nil {
		err = saveGPUMemory(r.stateDir, answers)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return outText.String(), problemsText.String()
}

// published starts topolet's look at devices anew, without any node, and returns the memory
// of GPUs as it is published, and what is wrong with devices and with the file.
func (r *gpuRig) published() (memory map[string]string, problems string, unusable error) {
	r.t.Helper()
	r.Remove("/dev")
	root := r.root()
	m, err := topology.Discover(root)
	if err != nil {
		r.t.Fatal(err)
	}
	ledger, err := allocator.NewLedger(m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, allocator.FileStore{Path: r.t.TempDir() + "/checkpoint"}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	query, unusable := loadGPUMemory(r.stateDir, root)
	config := v1alpha1.Configuration{Devices: []v1alpha1.DeviceFamily{{Family: "gpu"}}}
	w := newDeviceWatch(root, familiesOf(config, nil, query), func(string) error { return nil })
	logger := ktesting.NewLogger(r.t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	for range 3 {
		w.tell(klog.NewContext(r.t.Context(), logger), ledger)
	}
	memory = map[string]string{}
	for _, slice := range draplugin.Slices(ledger, "worker") {
		for _, d := range slice.Spec.Devices {
			if amount, ok := d.Capacity["topolet.dev/memory"]; ok && strings.HasPrefix(d.Name, "gpu-") {
				memory[d.Name] = amount.Value.String()
			}
		}
	}
	if buffered, ok := logger.GetSink().(ktesting.Underlier); ok {
		problems = buffered.GetBuffer().String()
	}
	return memory, problems, unusable
}

// publishes checks what is published, and that each of these is said once, and no more.
func (r *gpuRig) publishes(want map[string]string, said ...string) {
	r.t.Helper()
	memory, problems, unusable := r.published()
	if unusable != nil {
		r.t.Errorf("the file is not usable: %v", unusable)
	}
	if diff := cmp.Diff(want, memory); diff != "" {
		r.t.Errorf("memory -want +got:\n%s", diff)
	}
	if strings.Count(problems, "A problem with the devices") != len(said) {
		r.t.Errorf("want %d problems:\n%s", len(said), problems)
	}
	for _, s := range said {
		if strings.Count(problems, s) != 1 {
			r.t.Errorf("%q is not said once:\n%s", s, problems)
		}
	}
}

func (r *gpuRig) file() string { return filepath.Join(r.stateDir, gpuMemoryName) }

func TestMemoryThatDriversTellIsPublishedWithoutOpeningANode(t *testing.T) {
	r := newGPURig(t)
	r.publishes(map[string]string{})
	r = newGPURig(t)
	out, problems := r.probe()
	const want = `0000:37:01.0 /dev/dri/card0 (xe): 12884901888 bytes
0000:37:01.1 /dev/dri/card2 (xe): not asked, because the memory of a virtual function can change
0000:38:01.0 /dev/dri/card1 (i915): 17179869184 bytes
`
	if diff := cmp.Diff(want, out); diff != "" || problems != "" {
		t.Errorf("problems %q, told -want +got:\n%s", problems, diff)
	}
	r.publishes(map[string]string{b580Name: "12Gi", a770Name: "16Gi"})
	if info, err := os.Stat(r.file()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
}

func TestACardThatDoesNotAnswerIsPublishedWithoutMemory(t *testing.T) {
	local := gputest.Region{Class: gputest.Local, Bytes: 12 << 30}
	for name, test := range map[string]struct {
		change func(*gpuRig)
		said   string
	}{
		"the driver refuses":      {func(r *gpuRig) { r.kernel.Refuse(gputest.Null, syscall.EACCES) }, "permission denied"},
		"the device is reset":     {func(r *gpuRig) { r.kernel.Refuse(gputest.Null, syscall.ENODEV) }, "no such device"},
		"the answer is garbage":   {func(r *gpuRig) { r.kernel.Answer(gputest.Null, bytes.Repeat([]byte{0xff}, 96)) }, "makes no sense"},
		"the answer is too short": {func(r *gpuRig) { r.kernel.Answer(gputest.Null, gputest.Answer(8, local)[:95]) }, "makes no sense"},
		"there is no node":        {func(r *gpuRig) { r.Remove("/dev/dri/card0") }, "no such file"},
		"the node is another":     {func(r *gpuRig) { r.File(r.b580.Path+"/drm/card0/dev", "226:0") }, "not the node 226:0"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGPURig(t)
			test.change(r)
			out, problems := r.probe()
			if !strings.HasPrefix(problems, "0000:37:01.0 /dev/dri/card0 (xe): ") || !strings.Contains(problems, test.said) || strings.Count(problems, "\n") != 1 {
				t.Errorf("the problems are %q", problems)
			}
			if strings.Contains(out, "0000:37:01.0") || !strings.Contains(out, "17179869184 bytes") {
				t.Errorf("told:\n%s", out)
			}
			r.publishes(map[string]string{a770Name: "16Gi"}, "no answer of /dev/dri/card0 (xe)")
		})
	}
}

func TestACardWithoutMemoryOfItsOwnHasNone(t *testing.T) {
	r := newGPURig(t)
	r.kernel.Answer(gputest.Null, gputest.Answer(8, gputest.Region{Class: gputest.System, Bytes: 64 << 30}))
	r.probe()
	r.publishes(map[string]string{a770Name: "16Gi"})
}

func TestACardThatIsStuckDoesNotHoldUpOthers(t *testing.T) {
	r := newGPURig(t)
	p, out, problems := r.prober()
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	p.query, p.limit = heldQuery{p.query, "0000:37:01.0", hold}, 50*time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	answers, err := p.probe(ctx)
	if err != nil || len(answers.Cards) != 1 || answers.Cards[0].Address != "0000:38:01.0" {
		t.Errorf("answers %+v, %v\n%s", answers, err, out)
	}
	if !strings.Contains(problems.String(), "no answer within 50ms") {
		t.Errorf("the problems are %q", problems)
	}
	p.limit = 10 * time.Second
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = p.probe(ctx)
	expect.Error(t, err, "told to end")
	if waited := time.Since(began); waited >= p.limit {
		t.Errorf("it ends after %v", waited)
	}
}

// heldQuery does not answer for one function.
type heldQuery struct {
	gpu.MemoryQuery
	address string
	until   chan struct{}
}

func (q heldQuery) LocalMemory(f topology.PCIFunction, card device.Node) (uint64, error) {
	if f.Address.String() == q.address {
		<-q.until
	}
	return q.MemoryQuery.LocalMemory(f, card)
}

func TestAnswersHoldForOneRunOfTheMachine(t *testing.T) {
	r := newGPURig(t)
	r.probe()
	r.File("/proc/sys/kernel/random/boot_id", "another-boot")
	memory, problems, unusable := r.published()
	expect.Error(t, unusable, r.file(), "field bootID", "another-boot", "run topolet probe")
	if len(memory) > 0 || strings.Contains(problems, "A problem") {
		t.Errorf("memory %v, problems %s", memory, problems)
	}
	r.node(r.b580, "card0", gputest.Null)
	r.node(r.a770, "card1", gputest.Zero)
	r.probe()
	r.publishes(map[string]string{b580Name: "12Gi", a770Name: "16Gi"})
}

func TestAnswersOfAnUnknownRunOfTheMachineAreNotUsed(t *testing.T) {
	r := newGPURig(t)
	r.probe()
	r.rewrite(func(c *gpuMemory) { c.BootID = "" })
	r.Remove("/proc")
	_, _, unusable := r.published()
	expect.Error(t, unusable, "field bootID")
}

func TestAContainerWithoutTheHostsProcKnowsTheRunOfTheMachine(t *testing.T) {
	own, err := os.ReadFile("/" + bootIDFile)
	if err != nil {
		t.Skip(err)
	}
	r := newGPURig(t)
	r.Remove("/proc")
	r.probe()
	r.File("/"+bootIDFile, strings.TrimSpace(string(own)))
	r.publishes(map[string]string{b580Name: "12Gi", a770Name: "16Gi"})
}

// rewrite changes the file.
func (r *gpuRig) rewrite(change func(*gpuMemory)) {
	r.t.Helper()
	p, _, _ := r.prober()
	content, err := p.probe(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	change(&content)
	if err := saveGPUMemory(r.stateDir, content); err != nil {
		r.t.Fatal(err)
	}
}

func TestAFileThatIsNotOfThisProgramGivesNoAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*gpuMemory)
		said   string
	}{
		"another version":    {func(c *gpuMemory) { c.Version++ }, "field version is 2, this topolet reads version 1"},
		"no version":         {func(c *gpuMemory) { c.Version = 0 }, "field version is 0"},
		"an address twice":   {func(c *gpuMemory) { c.Cards[1].Address = c.Cards[0].Address }, "field cards[1].address is 0000:37:01.0"},
		"what is no address": {func(c *gpuMemory) { c.Cards[0].Address = "card0" }, "field cards[0].address"},
		"no address":         {func(c *gpuMemory) { c.Cards[0].Address = "" }, "field cards[0].address"},
		"another run's boot": {func(c *gpuMemory) { c.BootID = "x" }, `field bootID is "x"`},
		"an unknown run":     {func(c *gpuMemory) { c.BootID = "" }, `field bootID is ""`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGPURig(t)
			r.rewrite(test.change)
			memory, _, unusable := r.published()
			expect.Error(t, unusable, r.file(), test.said, "run topolet probe")
			if len(memory) > 0 {
				t.Errorf("memory %v", memory)
			}
		})
	}
}

func TestGarbageGivesNoAnswers(t *testing.T) {
	r := newGPURig(t)
	r.probe()
	whole, err := os.ReadFile(r.file())
	if err != nil {
		t.Fatal(err)
	}
	root := r.root()
	texts := map[string]string{
		"nothing": "", "null": "null", "a list": "[]", "a number": "1", "noise": "\xff\x00\xfe", "two files": string(whole) + string(whole),
		"a negative size": strings.Replace(string(whole), "12884901888", "-1", 1),
		"a size too big":  strings.Replace(string(whole), "12884901888", "18446744073709551616", 1),
		"a fraction":      strings.Replace(string(whole), "12884901888", "0.5", 1),
	}
	for end := range len(whole) - 2 {
		texts[fmt.Sprintf("the first %d bytes", end)] = string(whole[:end])
	}
	for name, text := range texts {
		if err := os.WriteFile(r.file(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		query, err := loadGPUMemory(r.stateDir, root)
		if _, ok := errors.AsType[*gpuMemoryError](err); !ok || query != nil {
			t.Errorf("%s: got %v, %v", name, query, err)
		}
	}
	// A size that no GPU has is nobody's memory.
	r.rewrite(func(c *gpuMemory) { c.Cards[0].Bytes = 1 << 63 })
	r.publishes(map[string]string{a770Name: "16Gi"})
}

func TestAFileThatCannotBeReadIsAnError(t *testing.T) {
	r := newGPURig(t)
	if err := os.MkdirAll(r.file(), 0o700); err != nil {
		t.Fatal(err)
	}
	query, err := loadGPUMemory(r.stateDir, r.root())
	expect.Error(t, err, r.file())
	if query != nil {
		t.Errorf("got %v", query)
	}
}

func TestWithoutGPUsInTheConfigurationTheFileIsNotRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, gpuMemoryName), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	for family, wantError := range map[string]bool{"gpu": true, "nvme": false} {
		config := v1alpha1.Configuration{Devices: []v1alpha1.DeviceFamily{{Family: family}}}
		if query, err := gpuMemoryFor(config, dir, os.DirFS(dir)); query != nil || (err != nil) != wantError {
			t.Errorf("with family %s: %v, %v", family, query, err)
		}
	}
}

func TestMemoryStaysWithTheFunctionWhenCardsAreNumberedAnew(t *testing.T) {
	r := newGPURig(t)
	r.probe()
	r.Remove(r.b580.Path + "/drm")
	r.Remove(r.a770.Path + "/drm")
	r.node(r.b580, "card1", gputest.Zero)
	r.node(r.a770, "card0", gputest.Null)
	r.publishes(map[string]string{b580Name: "12Gi", a770Name: "16Gi"})
}

func TestACardThatIsAnotherThanTheOneThatAnsweredHasNoMemory(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*gpuRig)
		said   string
	}{
		"another driver": {func(r *gpuRig) {
			r.a770.Driver = "xe"
			r.Add(r.a770)
		}, `the driver of 0000:38:01.0 was \"i915\", now it is \"xe\"`},
		"another model": {func(r *gpuRig) {
			r.a770.Device = 0x56a5
			r.Add(r.a770)
		}, `0000:38:01.0 was a card \"8086:56a0\", now it is \"8086:56a5\"`},
		"another place": {func(r *gpuRig) {
			r.Remove(r.a770.Path)
			r.Remove("/sys/bus/pci/devices/" + r.a770.Address())
			r.a770.Path = "/sys/devices/pci0000:39/0000:39:01.0"
			r.Add(r.a770)
			r.node(r.a770, "card1", gputest.Zero)
		}, "no answer of /dev/dri/card1 (i915): it came later"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGPURig(t)
			r.probe()
			test.change(r)
			r.publishes(map[string]string{b580Name: "12Gi"}, test.said)
		})
	}
}

func TestWhatAnEarlierProbeLearntIsForgotten(t *testing.T) {
	r := newGPURig(t)
	r.probe()
	r.kernel.Answer(gputest.Zero, answerOf("i915", 8<<30))
	r.kernel.Refuse(gputest.Null, syscall.EIO)
	r.probe()
	r.publishes(map[string]string{a770Name: "8Gi"}, "no answer of /dev/dri/card0")

	r = newGPURig(t)
	r.probe()
	r.Remove("/sys/devices/system/cpu")
	out, problems := r.probe()
	if out != "" || !strings.HasPrefix(problems, "No GPU is asked") {
		t.Errorf("told %q, %q", out, problems)
	}
	query, err := loadGPUMemory(r.stateDir, r.root())
	if saved, ok := query.(*savedGPUMemory); err != nil || !ok || len(saved.cards) > 0 {
		t.Errorf("answers %v, %v", query, err)
	}
}

func TestProbeSaysThatThereIsNothingToAsk(t *testing.T) {
	h := devicetest.New(t)
	stateDir := t.TempDir()
	out, err := execute("probe", "--root", h.Dir, "--state-dir", stateDir)
	if err != nil || out != "There is no GPU that has to be asked how much memory it has\n" {
		t.Errorf("got %v:\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(stateDir, gpuMemoryName)); err != nil {
		t.Error(err)
	}
}

// The kernel of the host has no driver of GPUs behind these nodes.
func TestProbeDoesNotFailWithACard(t *testing.T) {
	r := newGPURig(t)
	out, err := execute("probe", "--root", r.Dir, "--state-dir", r.stateDir)
	if err != nil || strings.Count(out, syscall.ENOTTY.Error()) != 2 || strings.Count(out, "published without its memory") != 2 {
		t.Errorf("got %v:\n%s", err, out)
	}
}

func TestProbeRefuses(t *testing.T) {
	r := newGPURig(t)
	notAFolder := write(t, "state", "")
	for name, test := range map[string]struct {
		args []string
		said []string
	}{
		"a relative root":          {[]string{"--root", "host"}, []string{`--root is "host"`, "absolute path"}},
		"a relative state folder":  {[]string{"--state-dir", ""}, []string{`--state-dir is ""`, "absolute path"}},
		"a root that is not there": {[]string{"--root", r.Dir + "/none"}, []string{"--root " + r.Dir + "/none"}},
		"a file for a folder": {[]string{"--root", r.Dir, "--state-dir", notAFolder},
			[]string{notAFolder + "/" + gpuMemoryName, "mend the disk"}},
		"a folder for the file": {[]string{"--root", r.Dir, "--state-dir", filepath.Dir(r.folder())},
			[]string{r.file(), "mend the disk"}},
		"arguments": {[]string{"now"}, []string{`"now"`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := execute(append([]string{"probe"}, test.args...)...)
			expect.Error(t, err, test.said...)
		})
	}
}

// folder puts a folder in the place of the file.
func (r *gpuRig) folder() string {
	r.t.Helper()
	if err := os.MkdirAll(r.file(), 0o700); err != nil {
		r.t.Fatal(err)
	}
	return r.file()
}
