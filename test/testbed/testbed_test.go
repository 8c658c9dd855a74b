package testbed

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/component"
	"github.com/topolet/topolet/test/testbed/internal/layout"
	"github.com/topolet/topolet/test/testbed/internal/progress"
)

func TestValidate(t *testing.T) {
	good := Options{State: "/srv/tb", NodeName: "n1.example", PodCIDR: "10.1.0.0/16", FeatureGates: map[string]bool{"DRAAdminAccess": true}, APIServerPort: 6443}
	if err := good.Validate(); err != nil {
		t.Errorf("good options: %v", err)
	}
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("no options: %v", err)
	}
	for want, bad := range map[string]Options{
		"absolute":      {State: "here"},
		"node name":     {NodeName: "Node_1"},
		"63":            {NodeName: strings.Repeat("n", 64)},
		"pod network":   {PodCIDR: "10.1.0.0"},
		"IPv4":          {PodCIDR: "fd00::/64"},
		"/30":           {PodCIDR: "10.1.0.0/31"},
		"loopback":      {PodCIDR: "127.5.0.0/16"},
		"feature gate":  {FeatureGates: map[string]bool{"--x": true}},
		"1 to 65535":    {APIServerPort: 70000},
		"link-local or": {PodCIDR: "169.254.0.0/16"},
	} {
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want one with %q", bad, err, want)
		}
	}
	all := Options{NodeName: "X", PodCIDR: "y", APIServerPort: -1}.Validate()
	for _, want := range []string{"node name", "pod network", "port"} {
		if all == nil || !strings.Contains(all.Error(), want) {
			t.Errorf("three mistakes: error %v lacks %q", all, want)
		}
	}
}

func TestParseFeatureGates(t *testing.T) {
	gates, err := ParseFeatureGates("A=true, B=false,")
	if err != nil || len(gates) != 2 || !gates["A"] || gates["B"] {
		t.Errorf("%v, %v", gates, err)
	}
	if gates, err := ParseFeatureGates(""); err != nil || gates == nil || len(gates) != 0 {
		t.Errorf("empty: %v, %v", gates, err)
	}
	for _, bad := range []string{"A", "A=yes", "A=true,B"} {
		if _, err := ParseFeatureGates(bad); err == nil || !strings.Contains(err.Error(), "Name=true") {
			t.Errorf("%q: error %v, want one with the form", bad, err)
		}
	}
}

func TestMergeKeepsWhatWasRecorded(t *testing.T) {
	first := merge(Options{NodeName: "n1", FeatureGates: map[string]bool{"A": true}}, record{})
	if first.NodeName != "n1" || first.PodCIDR != DefaultPodCIDR || first.Ports != component.DefaultPorts() {
		t.Errorf("first: %+v", first)
	}
	again := merge(Options{}, first)
	if again.NodeName != "n1" || !again.FeatureGates["A"] {
		t.Errorf("again: %+v", again)
	}
	none := merge(Options{FeatureGates: map[string]bool{}}, again)
	if len(none.FeatureGates) != 0 {
		t.Errorf("gates that were taken away: %+v", none)
	}
	config := "api/all=true"
	if r := merge(Options{RuntimeConfig: &config, APIServerPort: 7443}, again); r.RuntimeConfig != config || r.Ports.APIServer != 7443 {
		t.Errorf("overlaid: %+v", r)
	}
}

func TestChoosePodCIDR(t *testing.T) {
	used := func(free string) func(netip.Prefix) (bool, error) {
		return func(p netip.Prefix) (bool, error) { return p.String() != free, nil }
	}
	for _, want := range []string{DefaultPodCIDR, "10.217.0.0/24"} {
		if got, err := choosePodCIDR(used(want)); err != nil || got != want {
			t.Errorf("chose %q, %v, want %q", got, err, want)
		}
	}
	if _, err := choosePodCIDR(used("none")); err == nil || !strings.Contains(err.Error(), "--pod-cidr") {
		t.Errorf("none free: error %v, want one that names the flag", err)
	}
}

func TestChoosePorts(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().(*net.TCPAddr).Port
	ports := component.DefaultPorts()
	ports.Scheduler = taken

	var first, second reservations
	defer first.release()
	defer second.release()
	got, err := first.choose(t.Context(), ports, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got.Scheduler == taken {
		t.Error("a port that is in use was kept")
	}
	other, err := second.choose(t.Context(), ports, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	chosen := map[int]bool{}
	got.Each(func(_ string, port *int) { chosen[*port] = true })
	other.Each(func(name string, port *int) {
		if chosen[*port] {
			t.Errorf("two clusters that come up at the same time have the port %d, the second one for its %s", *port, name)
		}
	})
	first.release()
	second.release()
	if got, err = first.choose(t.Context(), ports, map[int]bool{taken: true}, 0); err != nil || got.Scheduler != taken {
		t.Errorf("a running component lost its port: %+v, %v", got, err)
	}
	ports.APIServer = taken
	ports.Scheduler = 10259
	first.release()
	if _, err := first.choose(t.Context(), ports, nil, taken); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port that was asked for and is in use: error %v", err)
	}
}

func bed(t *testing.T) *Testbed {
	t.Helper()
	return &Testbed{layout: layout.Layout{State: t.TempDir()}, log: progress.New(new(strings.Builder))}
}

func TestRecordRoundTrip(t *testing.T) {
	b := bed(t)
	if _, err := b.load(); !errors.Is(err, ErrNone) {
		t.Errorf("nothing recorded: error %v", err)
	}
	want := merge(Options{NodeName: "n1"}, record{})
	if err := want.save(b.layout.Record()); err != nil {
		t.Fatal(err)
	}
	got, err := b.load()
	if err != nil || got.NodeName != "n1" || got.Ports != want.Ports {
		t.Errorf("%+v, %v", got, err)
	}
	vars, err := b.Env()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range vars {
		if v.Value == "" || strings.ContainsAny(v.Value, " '\"$`\\") {
			t.Errorf("%s=%q is not fit for a shell", v.Name, v.Value)
		}
	}
}

func TestLockWaits(t *testing.T) {
	b := bed(t)
	unlock, err := b.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := b.lock(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second lock: error %v", err)
	}
	time.AfterFunc(100*time.Millisecond, unlock)
	second, err := b.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// Who holds the lock deletes the testbed: a waiter must not end up with
	// the lock of a file that is gone.
	time.AfterFunc(150*time.Millisecond, func() {
		_ = os.Remove(b.layout.Lock())
		second()
	})
	third, err := b.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer third()
	if _, err := os.Stat(filepath.Join(b.layout.State, "lock")); err != nil {
		t.Error("the lock that was got is not the one that others see")
	}
}

func TestStatusOfNothing(t *testing.T) {
	s, err := bed(t).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Ready || len(s.Components) != len(Components()) {
		t.Errorf("%+v", s)
	}
}
