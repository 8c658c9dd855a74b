package layout

import (
	"strings"
	"testing"
)

func TestDefaultStateLeavesRoomForSockets(t *testing.T) {
	l, err := New(DefaultState)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{l.State + longestSocket, l.ContainerdSocket() + ".ttrpc", l.NRISocket(), l.PodResourcesSocket()} {
		if len(p) > maxSocketPath {
			t.Errorf("%s has %d characters, more than %d", p, len(p), maxSocketPath)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for state, want := range map[string]string{
		"relative":                               "absolute",
		"/":                                      "two levels",
		"/var":                                   "two levels",
		"/var/../srv":                            "two levels",
		"/tmp/with space":                        "spaces",
		"/tmp/a,b":                               "commas",
		"/tmp/" + strings.Repeat("long/", 10):    "longer than the kernel allows",
		"/var/lib/topolet-testbed-which-is-long": "longer than the kernel allows",
	} {
		if _, err := New(state); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%q): error %v, want one with %q", state, err, want)
		}
	}
}

func TestTestbedsDoNotShareNames(t *testing.T) {
	a, err := New("/tmp/a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := New("/tmp/b")
	if err != nil {
		t.Fatal(err)
	}
	d, err := New(DefaultState + "/")
	if err != nil {
		t.Fatal(err)
	}
	if d.Cgroup() != "/topolet-testbed" || d.Bridge() != "topolet0" {
		t.Errorf("default names are %s and %s", d.Cgroup(), d.Bridge())
	}
	if a.Cgroup() == b.Cgroup() || a.Bridge() == b.Bridge() || a.Cgroup() == d.Cgroup() {
		t.Errorf("names collide: %s %s, %s %s", a.Cgroup(), a.Bridge(), b.Cgroup(), b.Bridge())
	}
	// IFNAMSIZ counts the final zero.
	if len(a.Bridge()) > 15 {
		t.Errorf("the interface name %s is too long", a.Bridge())
	}
}

func TestFoldersAreInside(t *testing.T) {
	l, err := New("/srv/tb")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range l.Folders() {
		if !strings.HasPrefix(dir, "/srv/tb/") {
			t.Errorf("%s is outside of the state folder", dir)
		}
	}
}
