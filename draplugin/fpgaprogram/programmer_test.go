package fpgaprogram_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/draplugin/fpgaprogram/fpgatest"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/device/devicetest"
	"github.com/topolet/topolet/topology/device/fpga/bitstream"
)

const (
	interfaceID = "69528db6eb31577a8c3668f9faa081f6"
	before      = "d8424dc4a4a3c413f89e433683f9040b"
	wanted      = "f7df405cbd7acf7222f144b0b93acd18"

	folder  = "/srv/fpga"
	address = "0000:5e:00.0"
)

// rig is a host with a card of two ports, a folder of programs, and a state folder.
type rig struct {
	*fpgatest.Card
	host  *devicetest.Host
	files *resetting
	state string
}

// resetting are the files of a host whose ports do not tell their functions for some time.
type resetting struct {
	fs.ReadLinkFS
	mu    sync.Mutex
	looks int
}

// reset has the next looks at functions fail.
func (f *resetting) reset(looks int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks = looks
}

func (f *resetting) Open(name string) (fs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasSuffix(name, "/afu_id") && f.looks > 0 {
		f.looks--
		return nil, &fs.PathError{Op: "read", Path: name, Err: syscall.EBUSY}
	}
	return f.ReadLinkFS.Open(name)
}

func newRig(t *testing.T, stack string) *rig {
	t.Helper()
	h := devicetest.New(t)
	root, err := topology.OpenRoot(h.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() }) //nolint:errcheck // only read
	r := &rig{
		Card: fpgatest.New(t, h, stack, address, interfaceID, before, 2), host: h,
		files: &resetting{ReadLinkFS: root}, state: t.TempDir(),
	}
	fpgatest.Program(t, r.folder(), interfaceID, wanted, "first")
	return r
}

// folder is that of the programs, as the test reaches it.
func (r *rig) folder() string { return filepath.Join(r.host.Dir, folder) }

func (r *rig) job(port uint32, afuID string) fpgaprogram.Job {
	return fpgaprogram.Job{Device: r.Device(port), AFUID: afuID, StateDir: r.state, Folder: folder}
}

func (r *rig) run(t *testing.T, job fpgaprogram.Job) error {
	t.Helper()
	return r.programmer(20*time.Second).Run(t.Context(), job)
}

func (r *rig) programmer(patience time.Duration) fpgaprogram.Programmer {
	return fpgaprogram.Programmer{Files: r.files, Root: r.host.Dir, Kernel: r, Patience: patience}
}

func (r *rig) wantEvents(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, r.Events()); diff != "" {
		t.Errorf("the engine's programs -want +got:\n%s", diff)
	}
}

func eachStack(t *testing.T, test func(t *testing.T, r *rig)) {
	for _, stack := range []string{"dfl", "opae"} {
		t.Run(stack, func(t *testing.T) { test(t, newRig(t, stack)) })
	}
}

func TestAPortIsProgrammedOnce(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		for range 3 {
			if err := r.run(t, r.job(1, wanted)); err != nil {
				t.Fatal(err)
			}
		}
		if r.AFU(1) != wanted || r.AFU(0) != before {
			t.Errorf("the ports have %s and %s", r.AFU(0), r.AFU(1))
		}
		r.wantEvents(t, "port1 first")
	})
}

// While the function is right, a container starts whatever has become of the rest.
func TestAPortThatHasTheFunctionIsLeftAlone(t *testing.T) {
	for name, spoil := range map[string]func(*rig, *fpgaprogram.Job){
		"nothing is wrong":     func(*rig, *fpgaprogram.Job) {},
		"there is no program":  func(r *rig, _ *fpgaprogram.Job) { r.host.Remove(folder) },
		"there is no folder":   func(_ *rig, j *fpgaprogram.Job) { j.Folder = "" },
		"the engine is in use": func(r *rig, _ *fpgaprogram.Job) { r.BusyOpens = 1 << 20 },
		"the engine's node is lost": func(r *rig, _ *fpgaprogram.Job) {
			r.host.Remove(r.Function.Path + "/fpga_region/region0/dfl-fme.0/dev")
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "dfl")
			r.Have(0, wanted)
			job := r.job(0, wanted)
			spoil(r, &job)
			if err := r.run(t, job); err != nil {
				t.Error(err)
			}
			r.wantEvents(t)
		})
	}
}

// Its user has it reset, perhaps, who shall not have it programmed.
func TestAPortThatIsBeingResetIsWaitedFor(t *testing.T) {
	r := newRig(t, "dfl")
	r.Have(0, wanted)
	r.files.reset(6)
	if err := r.run(t, r.job(0, wanted)); err != nil {
		t.Error(err)
	}
	r.wantEvents(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.After = func() {
		r.files.reset(6) // as the hardware does
		cancel()         // the patience is at its end
	}
	if err := r.programmer(time.Hour).Run(ctx, r.job(1, wanted)); err != nil {
		t.Error(err)
	}
	r.wantEvents(t, "port1 first")
}

func TestAPortThatDoesNotComeBackIsNotTakenForProgrammed(t *testing.T) {
	r := newRig(t, "dfl")
	r.files.reset(1 << 20)
	err := r.programmer(300*time.Millisecond).Run(t.Context(), r.job(0, wanted))
	if err == nil || !strings.Contains(err.Error(), `after programming it has function ""`) {
		t.Errorf("got %v", err)
	}
}

// The kernel counts over all cards, in the order in which their drivers are bound.
func TestThePortIsFoundWhateverNumbersTheKernelGives(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		r.Renumber(7)
		if err := r.run(t, r.job(0, wanted)); err != nil {
			t.Fatal(err)
		}
		r.wantEvents(t, "port0 first")
	})
}

// The engine stays the physical function's, and so does the lock.
func TestAPortOfAVirtualFunctionIsProgrammedByTheCardsEngine(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		r.Give(1)
		if !strings.Contains(r.Device(1), "5e-00-2-port1") {
			t.Fatalf("the device is %s", r.Device(1))
		}
		if err := r.run(t, r.job(1, wanted)); err != nil {
			t.Fatal(err)
		}
		r.wantEvents(t, "port1 first")
		locks, err := filepath.Glob(filepath.Join(r.state, "*"))
		if err != nil || len(locks) != 1 || filepath.Base(locks[0]) != "fpga-0000-5e-00-0.lock" {
			t.Errorf("locks %q, %v", locks, err)
		}
	})
}

func TestOthersWhoAreInTheWayAreWaitedFor(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		r.BusyOpens, r.BusyPrograms = 2, 2
		if err := r.run(t, r.job(0, wanted)); err != nil {
			t.Fatal(err)
		}
		r.wantEvents(t, "port0 first")
	})
}

func TestHooksOfACardProgramOneAfterTheOther(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		var hooks sync.WaitGroup
		for range 3 {
			for port := range uint32(2) {
				hooks.Go(func() {
					if err := r.run(t, r.job(port, wanted)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		hooks.Wait()
		events := strings.Join(r.Events(), ", ")
		if events != "port0 first, port1 first" && events != "port1 first, port0 first" {
			t.Errorf("the engine's programs are %s", events)
		}
	})
}

func TestWhatCannotBeProgrammedIsSaid(t *testing.T) {
	const other = "ce48969398f05f33946d560708be108a"
	for name, test := range map[string]struct {
		change func(*testing.T, *rig, *fpgaprogram.Job)
		said   []string
		kernel error
	}{
		"there is no such program": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.host.Remove(folder + "/" + interfaceID) },
			said:   []string{folder + "/" + interfaceID + "/" + wanted + ".gbs", "neither this file nor one that ends in .aocx", "put the program there"},
		},
		"there is no folder": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.host.Remove(folder) },
			said:   []string{folder + ": opening the folder of programs: no such file"},
		},
		"the node has no folder any more": {
			change: func(_ *testing.T, _ *rig, j *fpgaprogram.Job) { j.Folder = "" },
			said:   []string{`it has function "` + before + `", and the node has no folder`, "programs.folder"},
		},
		"the card's interface has changed": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) {
				r.host.File(r.Function.Path+"/fpga_region/region0/dfl-fme.0/dfl-fme-region.1/fpga_region/region1/compat_id", other)
			},
			said: []string{folder + "/" + other + "/" + wanted + ".gbs: there is neither"},
		},
		"the card is gone": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.host.Remove(r.Function.Path) },
			said:   []string{"this machine has no such port", "delete the pod"},
		},
		"the engine's node is lost": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) {
				r.host.Remove(r.Function.Path + "/fpga_region/region0/dfl-fme.0/dev")
			},
			said: []string{"cannot be programmed at the moment"},
		},
		"udev has not made the node": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) {
				r.host.File(r.Function.Path+"/fpga_region/region0/dfl-fme.0/uevent", "DEVNAME=dfl-fme.9")
			},
			said: []string{"/dev/dfl-fme.9: opening the card's engine: no such file"}, kernel: syscall.ENOENT,
		},
		"the node is another's": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.Minor = 3 },
			said:   []string{"/dev/dfl-fme.0: it is the node 238:3, and the engine's is 238:0"},
		},
		"the driver has another version": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.Version = 1 },
			said:   []string{"the driver has version 1 of its interface", "version 0"},
		},
		"the engine stays in use": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.BusyOpens = 1 << 20 },
			said:   []string{"/dev/dfl-fme.0: waiting for others who have the card's engine open, for ", "end the program"}, kernel: syscall.EBUSY,
		},
		"others go on programming": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.BusyPrograms = 1 << 20 },
			said:   []string{"waiting for others who program the card, for "}, kernel: syscall.EBUSY,
		},
		"the program is for another card, whatever its header says": {
			change: func(t *testing.T, r *rig, _ *fpgaprogram.Job) {
				content := fpgatest.GBS(interfaceID, wanted, "")
				text := strings.Replace(string(content), interfaceID+" "+wanted, other+" "+wanted, 1)
				write(t, filepath.Join(r.folder(), interfaceID, wanted+".gbs"), text)
			},
			said: []string{"the driver refuses the program for port 0: invalid argument"}, kernel: syscall.EINVAL,
		},
		"the hardware finds something wrong": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.Breaks = true },
			said:   []string{"the hardware refuses the program for port 0", "input/output error", "kernel's log"}, kernel: syscall.EIO,
		},
		"the port has another function afterwards": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.Wrong = other },
			said:   []string{"after programming it has function \"" + other},
		},
		"the port has crashed afterwards": {
			change: func(_ *testing.T, r *rig, _ *fpgaprogram.Job) { r.Wrong = fpgatest.Crashed },
			said:   []string{"after programming it has function \"ffff"},
		},
		"the state folder cannot be written": {
			change: func(_ *testing.T, _ *rig, j *fpgaprogram.Job) { j.StateDir = "/proc/nowhere" },
			said:   []string{"opening the lock of the card"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "dfl")
			job := r.job(0, wanted)
			test.change(t, r, &job)
			err := r.programmer(300*time.Millisecond).Run(t.Context(), job)
			if err == nil {
				t.Fatal("nothing is said")
			}
			for _, s := range append(test.said, r.Device(0)+" does not get function "+wanted) {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("the error does not say %q: %v", s, err)
				}
			}
			if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), r.host.Dir) {
				t.Errorf("the error is not one line in the host's terms: %q", err)
			}
			if test.kernel != nil && !errors.Is(err, test.kernel) {
				t.Errorf("the error is not %v: %v", test.kernel, err)
			}
			said, ok := errors.AsType[*fpgaprogram.Error](err)
			if !ok || said.Subject == "" || said.Remedy == "" {
				t.Errorf("the error does not help: %#v", err)
			}
		})
	}
}

func TestTheHardwaresReasonsAreSaidWhereTheDriverTellsThem(t *testing.T) {
	r := newRig(t, "opae")
	r.Breaks = true
	err := r.run(t, r.job(0, wanted))
	if want := "port 0 (checksum error, incompatible program): input/output error"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

func TestAPortThatCrashedIsProgrammedAgain(t *testing.T) {
	eachStack(t, func(t *testing.T, r *rig) {
		r.Breaks = true
		if r.run(t, r.job(0, wanted)) == nil || r.AFU(0) != fpgatest.Crashed {
			t.Fatalf("the port has %s", r.AFU(0))
		}
		r.Breaks = false
		if err := r.run(t, r.job(0, wanted)); err != nil || r.AFU(0) != wanted {
			t.Errorf("the port has %s: %v", r.AFU(0), err)
		}
	})
}

func TestAHookThatIsCalledOffEnds(t *testing.T) {
	r := newRig(t, "dfl")
	r.BusyOpens = 1 << 20
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.programmer(time.Hour).Run(ctx, r.job(0, wanted)); !errors.Is(err, syscall.EBUSY) {
		t.Error(err)
	}
}

// All OpenCL programs bring the same function.
func TestAnOpenCLProgramIsToldFromOthersByWhatItIs(t *testing.T) {
	r := newRig(t, "dfl")
	mustRun := func(want ...string) {
		t.Helper()
		if err := r.run(t, r.job(0, bitstream.OpenCL)); err != nil {
			t.Fatal(err)
		}
		r.wantEvents(t, want...)
	}
	openCL := func(text string) { fpgatest.Program(t, r.folder(), interfaceID, bitstream.OpenCL, text) }
	r.Have(0, bitstream.OpenCL)
	openCL("one")
	mustRun("port0 one") // nobody knows what it has
	mustRun("port0 one")
	openCL("two")
	mustRun("port0 one", "port0 two")

	if err := r.run(t, r.job(0, wanted)); err != nil {
		t.Fatal(err)
	}
	r.Have(0, bitstream.OpenCL) // by somebody else, and so with anything
	mustRun("port0 one", "port0 two", "port0 first", "port0 two")

	r.host.File("/proc/sys/kernel/random/boot_id", "0b6c6d8e-0000-4000-8000-000000000000")
	mustRun("port0 one", "port0 two", "port0 first", "port0 two", "port0 two")
	r.host.File("/proc/sys/kernel/random/boot_id", "")
	mustRun("port0 one", "port0 two", "port0 first", "port0 two", "port0 two", "port0 two")
	mustRun("port0 one", "port0 two", "port0 first", "port0 two", "port0 two", "port0 two", "port0 two")
}

func TestWhatIsKnownOfOpenCLProgramsIsNotTrustedWhenItIsGarbled(t *testing.T) {
	r := newRig(t, "dfl")
	fpgatest.Program(t, r.folder(), interfaceID, bitstream.OpenCL, "one")
	lock := filepath.Join(r.state, "fpga-0000-5e-00-0.lock")
	want := []string{}
	for _, content := range []string{"", "{", "null", `{"bootID":"6f1c1f6e-8f0a-4d4b-9d38-6a4f3a1f2f10"}`, `{"bootID":"","programs":{}}`, "[]", strings.Repeat("x", 1<<17)} {
		write(t, lock, content)
		want = append(want, "port0 one")
		for range 2 {
			if err := r.run(t, r.job(0, bitstream.OpenCL)); err != nil {
				t.Fatal(err)
			}
		}
		r.wantEvents(t, want...)
	}
}

// A failure between leaves nothing that is taken for the program.
func TestAnOpenCLProgramThatFailedIsNotTakenForTheOneBefore(t *testing.T) {
	r := newRig(t, "dfl")
	fpgatest.Program(t, r.folder(), interfaceID, bitstream.OpenCL, "one")
	if err := r.run(t, r.job(0, bitstream.OpenCL)); err != nil {
		t.Fatal(err)
	}
	fpgatest.Program(t, r.folder(), interfaceID, bitstream.OpenCL, "two")
	r.Breaks = true
	if err := r.run(t, r.job(0, bitstream.OpenCL)); err == nil {
		t.Fatal("the hardware has accepted it")
	}
	r.Breaks = false
	r.Have(0, bitstream.OpenCL)
	fpgatest.Program(t, r.folder(), interfaceID, bitstream.OpenCL, "one")
	if err := r.run(t, r.job(0, bitstream.OpenCL)); err != nil {
		t.Fatal(err)
	}
	r.wantEvents(t, "port0 one", "port0 two", "port0 one")
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
