package v1alpha1

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	afuA = "d8424dc4a4a3c413f89e433683f9040b"
	afuB = "f7df405cbd7acf7222f144b0b93acd18"
)

func decodePrograms(text string) (Configuration, error) {
	return DecodeConfiguration([]byte("apiVersion: topolet.dev/v1alpha1\nkind: Configuration\ndevices: [{family: fpga, programs: " + text + "}]"))
}

func TestProgramsAreReadWithCanonicalIDs(t *testing.T) {
	c, err := decodePrograms(`{folder: /srv/fpga, allow: [{namespaces: [video, audio], afuIDs: [D8424DC4-A4A3-C413-F89E-433683F9040B]}, {namespaces: ["*"], management: true}]}`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Programs{Folder: "/srv/fpga", Allow: []ProgramRule{
		{Namespaces: []string{"video", "audio"}, AFUIDs: []string{afuA}},
		{Namespaces: []string{"*"}, Management: true},
	}}
	if diff := cmp.Diff(want, c.Devices[0].Programs); diff != "" {
		t.Errorf("programs -want +got:\n%s", diff)
	}
}

func TestProgramsThatCannotBeMeantAreRefused(t *testing.T) {
	const allow = `, allow: [{namespaces: ["*"]}]}`
	for text, said := range map[string]string{
		`{folder: srv` + allow:                                          `devices[0].programs.folder: "srv" is not valid: write an absolute path of the host`,
		`{folder: /` + allow:                                            `devices[0].programs.folder`,
		`{folder: ""` + allow:                                           `devices[0].programs.folder`,
		`{folder: /srv/../etc` + allow:                                  `devices[0].programs.folder`,
		`{folder: /srv/fpga/` + allow:                                   `devices[0].programs.folder`,
		`{folder: "/srv/f pga"` + allow:                                 `devices[0].programs.folder`,
		`{folder: "/srv/a\n/b"` + allow:                                 `devices[0].programs.folder`,
		`{folder: /proc/1/root` + allow:                                 `"/proc/1/root" is not valid: use a folder of a disk: /proc is the kernel's`,
		`{folder: /dev` + allow:                                         `/dev is the kernel's`,
		`{folder: /srv, allow: []}`:                                     `devices[0].programs.allow: "" is not valid: say which namespaces`,
		`{folder: /srv}`:                                                `devices[0].programs.allow`,
		`{folder: /srv, allow: [{}]}`:                                   `devices[0].programs.allow[0].namespaces: "" is not valid: name namespaces`,
		`{folder: /srv, root: /` + allow:                                `unknown field "devices[0].programs.root"`,
		`{folder: /srv, allow: [{namespaces: [a, "b/c"]}]}`:             `devices[0].programs.allow[0].namespaces[1]: "b/c" is not valid`,
		`{folder: /srv, allow: [{namespaces: [a]}, {afuIDs: []}]}`:      `devices[0].programs.allow[1].namespaces`,
		`{folder: /srv, allow: [{namespaces: [a], afuIDs: [nlb0]}]}`:    `devices[0].programs.allow[0].afuIDs[0]: "nlb0" is not valid: write 32 hexadecimal digits`,
		`{folder: /srv, allow: [{namespaces: [a], management: maybe}]}`: `cannot be read`,
	} {
		if _, err := decodePrograms(text); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%s: %v, want %q", text, err, said)
		}
	}
	const gpu = `{"apiVersion":"topolet.dev/v1alpha1","kind":"Configuration","devices":[{"family":"gpu","programs":{"folder":"/srv"}}]}`
	if _, err := DecodeConfiguration([]byte(gpu)); err == nil || !strings.Contains(err.Error(), `devices[0].programs: "gpu" is not valid: leave it out`) {
		t.Errorf("programs of another family: %v", err)
	}
}

func TestOnlyWhatARuleAllowsIsAllowed(t *testing.T) {
	p := Programs{Allow: []ProgramRule{
		{Namespaces: []string{"video"}, AFUIDs: []string{afuA}},
		{Namespaces: []string{"lab"}, Management: true},
		{Namespaces: []string{"*"}, AFUIDs: []string{afuB}},
	}}
	for _, test := range []struct {
		namespace        string
		a, b, management bool
	}{{"video", true, true, false}, {"lab", true, true, true}, {"other", false, true, false}, {"", false, true, false}} {
		if got := p.AllowsAFU(test.namespace, afuA); got != test.a {
			t.Errorf("%q may have the first function: %v", test.namespace, got)
		}
		if got := p.AllowsAFU(test.namespace, afuB); got != test.b {
			t.Errorf("%q may have the second function: %v", test.namespace, got)
		}
		if got := p.AllowsManagement(test.namespace); got != test.management {
			t.Errorf("%q may manage: %v", test.namespace, got)
		}
	}
	if (Programs{}).AllowsAFU("video", afuA) || (Programs{}).AllowsManagement("video") {
		t.Error("without rules something is allowed")
	}
}
