package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestStatusTellsWhoHoldsWhatAndHow(t *testing.T) {
	ledger, err := allocator.NewLedger(topologytest.New(topologytest.Spec{NUMAPerSocket: 2, CoresPerL3: 4}),
		allocator.Policy{ReservedCPUs: topology.NewCPUSet(0)}, allocator.FileStore{Path: t.TempDir() + "/checkpoint.json"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.Grant(allocator.Claim{UID: "u", Namespace: "default", Name: "two", Pods: []allocator.PodUID{"p"}},
		[]allocator.Request{{Name: "cpus", Domain: "numa-1", Count: 2}}); err != nil {
		t.Fatal(err)
	}
	ledger.Sync([]allocator.Container{{ID: "1", Name: "main", Pod: "p", PodNamespace: "default", PodName: "pod", Claims: []allocator.Ref{{Claim: "u"}}, Started: true}})
	ledger.Enforced("1", allocator.Enforcement{Tier: allocator.RuntimeTier, Reason: "because"})

	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	stopped, err := serveStatus(ctx, dir, func() nodeStatus { return statusOf("worker", ledger, "an old kernel", errors.New("no runtime")) })
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		cmd := newRootCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"status", "--state-dir", dir}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	text, err := run()
	if err != nil {
		t.Fatal(err)
	}
	squeezed := strings.Join(strings.Fields(text), " ")
	for _, want := range []string{
		"node worker", "serves claims no runtime", "kernel enforces an old kernel", "shared pool 0-3,6-7",
		"default/two cpus numa-1 4-5", "default/pod main 4-5 runtime because",
	} {
		if !strings.Contains(squeezed, want) {
			t.Errorf("the status does not say %q:\n%s", want, text)
		}
	}
	if text, err = run("--output", "json"); err != nil || !strings.Contains(text, `"tier": "runtime"`) {
		t.Errorf("as JSON: %v\n%s", err, text)
	}
	_, err = run("--output", "yaml")
	expect.Error(t, err, "--output", `"yaml"`, "text or json")

	cancel()
	<-stopped
	_, err = run()
	expect.Error(t, err, "no topolet answers at "+dir, "does it run on this machine")
}
