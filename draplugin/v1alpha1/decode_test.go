package v1alpha1

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const head = `"apiVersion":"topolet.dev/v1alpha1","kind":"CPUConfig"`

func TestDecodeCPUConfig(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		want      SharedPool
		said      []string
	}{
		{name: "by default the shared pool is excluded", raw: `{` + head + `}`, want: Exclude},
		{name: "excluded in words", raw: `{` + head + `,"sharedPool":"Exclude"}`, want: Exclude},
		{name: "included", raw: `{` + head + `,"sharedPool":"Include"}`, want: Include},
		{name: "empty is the default", raw: `{` + head + `,"sharedPool":""}`, want: Exclude},
		{name: "a field that does not exist", raw: `{` + head + `,"poolShared":"Include"}`, said: []string{`"poolShared"`, "its fields are apiVersion, kind, sharedPool, siblings, memory, sharing, loadBalancing"}},
		{name: "a field in other letters", raw: `{` + head + `,"SharedPool":"Include"}`, said: []string{`"SharedPool"`, "its fields are"}},
		{name: "a field twice", raw: `{` + head + `,"sharedPool":"Include","sharedPool":"Exclude"}`, said: []string{`duplicate field "sharedPool"`}},
		{name: "two mistakes", raw: `{` + head + `,"a":1,"b":2}`, said: []string{`unknown field "a", unknown field "b"; its fields are`}},
		{name: "a kind in other letters", raw: `{"apiVersion":"topolet.dev/v1alpha1","Kind":"CPUConfig"}`, said: []string{`"Kind"`}},
		{name: "a value of another type", raw: `{` + head + `,"sharedPool":true}`, said: []string{"sharedPool", "bool", "all strings"}},
		{name: "siblings that do not exist", raw: `{` + head + `,"siblings":"Off"}`, said: []string{"CPUConfig field siblings", `"Off"`, "use Use (the default) or Idle"}},
		{name: "memory that does not exist", raw: `{` + head + `,"memory":"Near"}`, said: []string{"CPUConfig field memory", `"Near"`, "use Any (the default) or Local"}},
		{name: "sharing that does not exist", raw: `{` + head + `,"sharing":"All"}`, said: []string{"CPUConfig field sharing", `"All"`, "use OnePod (the default) or ManyPods"}},
		{name: "load balancing that does not exist", raw: `{` + head + `,"loadBalancing":"Some"}`, said: []string{"CPUConfig field loadBalancing", `"Some"`, "use Enabled (the default) or Disabled"}},
		{name: "two values that do not exist, the first is named", raw: `{` + head + `,"memory":"Near","sharedPool":"Both"}`, said: []string{"CPUConfig field sharedPool"}},
		{name: "a value that does not exist", raw: `{` + head + `,"sharedPool":"Both"}`, said: []string{"CPUConfig field sharedPool", `"Both"`, "use Exclude (the default) or Include"}},
		{name: "no version", raw: `{"kind":"CPUConfig"}`, said: []string{"CPUConfig field apiVersion", `""`, "use topolet.dev/v1alpha1"}},
		{name: "another version", raw: `{"apiVersion":"topolet.dev/v1","kind":"CPUConfig"}`, said: []string{`"topolet.dev/v1"`, "use topolet.dev/v1alpha1"}},
		{name: "no kind", raw: `{"apiVersion":"topolet.dev/v1alpha1"}`, said: []string{"CPUConfig field kind", "use CPUConfig"}},
		{name: "another kind", raw: `{"apiVersion":"topolet.dev/v1alpha1","kind":"Configuration"}`, said: []string{`"Configuration"`, "use CPUConfig"}},
		{name: "null", raw: `null`, said: []string{"CPUConfig field apiVersion"}},
		{name: "nothing", raw: ``, said: []string{"CPUConfig cannot be read"}},
		{name: "a list", raw: `[]`, said: []string{"CPUConfig cannot be read"}},
		{name: "two objects", raw: `{` + head + `}{}`, said: []string{"CPUConfig cannot be read"}},
		{name: "YAML", raw: "kind: CPUConfig", said: []string{"CPUConfig cannot be read"}},
		{name: "far too long", raw: `{` + head + `}` + strings.Repeat(" ", maxBytes), said: []string{"more than"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := DecodeCPUConfig([]byte(tc.raw))
			wantError(t, err, tc.said)
			if diff := cmp.Diff(tc.want, got.SharedPool); diff != "" {
				t.Errorf("sharedPool (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeCPUConfigFillsInTheDefaults(t *testing.T) {
	for raw, want := range map[string]CPUConfig{
		`{` + head + `}`: {SharedPool: Exclude, Siblings: Use, Memory: Any, Sharing: OnePod, LoadBalancing: Enabled},
		`{` + head + `,"sharedPool":"Include","siblings":"Idle","memory":"Local","sharing":"ManyPods","loadBalancing":"Disabled"}`: {
			SharedPool: Include, Siblings: Idle, Memory: Local, Sharing: ManyPods, LoadBalancing: Disabled,
		},
	} {
		got, err := DecodeCPUConfig([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		want.APIVersion, want.Kind = APIVersion, "CPUConfig"
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", raw, diff)
		}
	}
}

func TestDecodeConfiguration(t *testing.T) {
	const head = "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n"
	for _, tc := range []struct {
		name, raw, want string
		said            []string
	}{
		{name: "without fields", raw: head},
		{name: "a list of CPUs", raw: head + "reservedCPUs: 0-1,64-65\n", want: "0-1,64-65"},
		{name: "JSON", raw: `{"apiVersion":"topolet.dev/v1alpha1","kind":"Configuration","reservedCPUs":"0"}`, want: "0"},
		{name: "a number without quotes", raw: head + "reservedCPUs: 0\n", said: []string{"reservedCPUs", "number", "all strings"}},
		{name: "a level that does not exist", raw: head + "levels: [l3, core]\n", said: []string{"Configuration field levels[1]", `"core"`, "use l3, socket or machine"}},
		{name: "NUMA nodes, which are always there", raw: head + "levels: [numa]\n", said: []string{"Configuration field levels[0]", `"numa"`, "always there"}},
		{name: "a level twice", raw: head + "levels: [l3, machine, l3]\n", said: []string{"Configuration field levels[2]", `"l3"`, "once"}},
		{name: "a level that is no list", raw: head + "levels: l3\n", said: []string{"levels", "a list of strings"}},
		{name: "memory that is no amount", raw: head + "reservedMemory: some\n", said: []string{"Configuration field reservedMemory", `"some"`, `"2Gi"`, `"5%"`}},
		{name: "more than all memory", raw: head + "reservedMemory: 101%\n", said: []string{"Configuration field reservedMemory", `"101%"`}},
		{name: "less than no memory", raw: head + "reservedMemory: -1Gi\n", said: []string{"Configuration field reservedMemory", `"-1Gi"`}},
		{name: "another enforcement", raw: head + "enforcement: Strict\n", said: []string{"Configuration field enforcement", `"Strict"`, "use Auto (the default) or Kernel or Runtime"}},
		{name: "another answer to low requests", raw: head + "cpuRequests: Kill\n", said: []string{"Configuration field cpuRequests", `"Kill"`, "use Warn (the default) or Refuse or Ignore"}},
		{name: "a text for yes", raw: head + "nodeAllocatable: \"yes\"\n", said: []string{"nodeAllocatable", "true or false"}},
		{name: "no list of CPUs", raw: head + "reservedCPUs: first\n", said: []string{"Configuration field reservedCPUs", `"first"`, "such as"}},
		{name: "a range that runs backwards", raw: head + "reservedCPUs: 3-1\n", said: []string{`"3-1"`}},
		{name: "a field that does not exist", raw: head + "reservedCpus: \"0\"\n", said: []string{`"reservedCpus"`, "its fields are apiVersion, kind, reservedCPUs"}},
		{name: "a field twice", raw: head + "reservedCPUs: \"0\"\nreservedCPUs: \"1\"\n", said: []string{"Configuration is not YAML", "reservedCPUs"}},
		{name: "no YAML", raw: "\t", said: []string{"Configuration is not YAML"}},
		{name: "an empty file", raw: "", said: []string{"Configuration field apiVersion", "use topolet.dev/v1alpha1"}},
		{name: "another kind", raw: strings.Replace(head, "Configuration", "CPUConfig", 1), said: []string{"Configuration field kind", `"CPUConfig"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := DecodeConfiguration([]byte(tc.raw))
			wantError(t, err, tc.said)
			if diff := cmp.Diff(tc.want, got.ReservedCPUs); diff != "" {
				t.Errorf("reservedCPUs (-want +got):\n%s", diff)
			}
		})
	}
}

func wantError(t *testing.T, err error, said []string) {
	t.Helper()
	if (err != nil) != (said != nil) {
		t.Fatalf("error %v", err)
	}
	for _, s := range said {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("the error is more than one line: %q", err)
	}
}

// Whatever is decoded without an error can be used without another look.
func FuzzDecodeCPUConfig(f *testing.F) {
	for _, seed := range []string{`{` + head + `}`, `{` + head + `,"sharedPool":"Include"}`, `{` + head + `,"sharedPool":null}`, `{}`, `null`, `[`, "\x00", `{"kind":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := DecodeCPUConfig(raw)
		switch {
		case err != nil && got != (CPUConfig{}):
			t.Errorf("%v comes with an error", got)
		case err == nil && (got.APIVersion != APIVersion || got.Kind != "CPUConfig"):
			t.Errorf("%v was taken for a CPUConfig", got)
		case err == nil && (got.SharedPool == "" || got.Siblings == "" || got.Memory == ""):
			t.Errorf("a field is not filled in: %v", got)
		}
		var field *FieldError
		if errors.As(err, &field) && (field.Field == "" || field.Remedy == "") {
			t.Errorf("the error does not help: %v", err)
		}
	})
}

func TestMemoryReserve(t *testing.T) {
	const head = "apiVersion: topolet.dev/v1alpha1\nkind: Configuration\n"
	for raw, want := range map[string][2]uint64{
		head:                             {0, 10},
		head + "reservedMemory: 0%\n":    {0, 0},
		head + "reservedMemory: 25%\n":   {0, 25},
		head + "reservedMemory: 1.5Gi\n": {3 << 29, 0},
		head + "reservedMemory: \"0\"\n": {0, 0},
	} {
		c, err := DecodeConfiguration([]byte(raw))
		if err != nil {
			t.Fatal(err)
		}
		bytes, percent, err := c.MemoryReserve()
		if got := [2]uint64{bytes, percent}; err != nil || got != want {
			t.Errorf("%q: %v, %v, want %v", raw, got, err, want)
		}
	}
}
