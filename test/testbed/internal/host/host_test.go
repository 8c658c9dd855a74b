package host

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestMountsBelow(t *testing.T) {
	const info = `21 1 254:0 / / rw - ext4 /dev/vda rw
40 21 254:0 /srv/tb /srv/tb rw shared:1 - ext4 /dev/vda rw
41 40 0:50 / /srv/tb/pods/a\040b rw - tmpfs tmpfs rw
42 21 0:51 / /srv/tb2 rw - tmpfs tmpfs rw
43 41 0:52 / /srv/tb/pods/a\040b/deep rw - tmpfs tmpfs rw
`
	got, err := mountsBelow(strings.NewReader(info), "/srv/tb")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/srv/tb", "/srv/tb/pods/a b", "/srv/tb/pods/a b/deep"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUnmountAllWithNothingThere(t *testing.T) {
	if n, err := UnmountAll(t.TempDir()); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestTheRecordSpeaksOfTheTimeBefore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host.json")
	before := Record{Settings: map[string]string{"vm/overcommit_memory": "2"}}
	data, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Note(file); err != nil {
		t.Fatal(err)
	}
	r, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.Settings["vm/overcommit_memory"] != "2" || len(r.Settings) != 1 {
		t.Errorf("the record was replaced: %v", r.Settings)
	}
}

func TestRestoreWithoutRecord(t *testing.T) {
	if err := Restore(filepath.Join(t.TempDir(), "absent")); err != nil {
		t.Error(err)
	}
}
