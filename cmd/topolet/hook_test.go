package main

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/topology/device/gaudi"
)

func TestTheRuntimesHookProgramsThisMachine(t *testing.T) {
	job := fpgaprogram.Job{Device: "fpga-ffff-ff-1f-7-port0", AFUID: "f7df405cbd7acf7222f144b0b93acd18", StateDir: t.TempDir()}
	for said, arguments := range map[string][]string{
		"fpga-ffff-ff-1f-7-port0: this machine has no such port": job.Hook("/var/lib/topolet/hook").Args[1:],
		"0 arguments in place of a device":                       {fpgaprogram.Command},
		`argument "nlb3" is not the ID of a function`:            {fpgaprogram.Command, job.Device, "nlb3", job.StateDir, ""},
	} {
		cmd := newRootCommand()
		cmd.SetArgs(arguments)
		cmd.SetOut(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%q: %v, want %q", arguments, err, said)
		}
	}
}

func TestGaudisKnowTheNetworkOfTheConfiguration(t *testing.T) {
	config, err := v1alpha1.DecodeConfiguration([]byte("apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n" +
		"devices: [{family: gaudi, networkHook: /bin/hook, networkConfig: /etc/net.json}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := gaudi.Family{NetworkHook: "/bin/hook", NetworkConfig: "/etc/net.json"}
	if got := familiesOf(config, nil, nil)[0]; got != want {
		t.Errorf("the family is %+v, want %+v", got, want)
	}
}

func TestThePluginKnowsTheProgramsOfTheConfiguration(t *testing.T) {
	config, err := v1alpha1.DecodeConfiguration([]byte("apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n" +
		`devices: [{family: gpu}, {family: fpga, programs: {folder: /srv/fpga, allow: [{namespaces: ["*"]}]}}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := draplugin.Programs{Root: "/host", Rules: v1alpha1.Programs{Folder: "/srv/fpga", Allow: []v1alpha1.ProgramRule{{Namespaces: []string{"*"}}}}}
	if diff := cmp.Diff(want, programsOf(config, "/host")); diff != "" {
		t.Errorf("programs -want +got:\n%s", diff)
	}
	if got := programsOf(v1alpha1.DefaultConfiguration(), "/host"); got.Rules.Folder != "" {
		t.Errorf("without any they are %+v", got)
	}
}
