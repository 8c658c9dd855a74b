package fpgaprogram_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	cdi "tags.cncf.io/container-device-interface/specs-go"

	"github.com/topolet/topolet/draplugin/fpgaprogram"
)

func job() fpgaprogram.Job {
	return fpgaprogram.Job{Device: "fpga-0000-5e-00-0-port1", AFUID: wanted, StateDir: "/var/lib/topolet", Folder: folder}
}

func TestTheHookRunsOnTheHostAndEndsBeforeTheKubeletGivesUp(t *testing.T) {
	seconds := 110
	want := &cdi.Hook{
		HookName: "createRuntime", Path: "/var/lib/topolet/hook", Timeout: &seconds,
		Args: []string{"hook", "program-fpga", "fpga-0000-5e-00-0-port1", wanted, "/var/lib/topolet", folder},
	}
	if diff := cmp.Diff(want, job().Hook("/var/lib/topolet/hook")); diff != "" {
		t.Errorf("the hook -want +got:\n%s", diff)
	}
}

func TestAJobIsWhatItsArgumentsSay(t *testing.T) {
	without := job()
	without.Folder = ""
	for _, want := range []fpgaprogram.Job{job(), without} {
		if got, err := fpgaprogram.ParseJob(want.Arguments()); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestArgumentsThatAreNoJobAreRefused(t *testing.T) {
	with := func(i int, value string) []string {
		arguments := job().Arguments()
		arguments[i] = value
		return arguments
	}
	for _, arguments := range [][]string{
		nil, job().Arguments()[:3], append(job().Arguments(), ""),
		with(0, ""), with(0, "fpga-0000-5e-00-0-monitor"), with(0, "gpu-0000-5e-00-0"),
		with(1, ""), with(1, "nlb3"), with(1, "F7DF405CBD7ACF7222F144B0B93ACD18"),
		with(2, ""), with(2, "lib"), with(2, "/var/../etc"), with(3, "srv"), with(3, "/srv/../etc"),
	} {
		if got, err := fpgaprogram.ParseJob(arguments); err == nil {
			t.Errorf("%q is %+v", arguments, got)
		}
	}
}
