package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	logsapi "k8s.io/component-base/logs/api/v1"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/test/expect"
	"github.com/topolet/topolet/topology"
	"github.com/topolet/topolet/topology/topologytest"
)

func TestRunRefusesFlags(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none.yaml")
	// The way to log can be set once in a process.
	t.Cleanup(func() {
		if err := logsapi.ResetForTest(nil); err != nil {
			t.Error(err)
		}
	})
	for _, tc := range []struct {
		name string
		args []string
		said []string
	}{
		{"without a node name", nil, []string{"--node-name is empty", "set it to the name of this machine's Node object"}},
		{"with a relative folder", []string{"--node-name=a", "--state-dir=state"}, []string{`--state-dir is "state"`, "absolute path"}},
		{"with a relative socket", []string{"--node-name=a", "--nri-socket=nri.sock"}, []string{`--nri-socket is "nri.sock"`}},
		{"with an empty folder", []string{"--node-name=a", "--cdi-dir="}, []string{`--cdi-dir is ""`}},
		{"with several mistakes, the first by name", []string{"--node-name=a", "--state-dir=b", "--cdi-dir=c", "--root=d"}, []string{`--cdi-dir is "c"`}},
		{"that do not exist", []string{"--node=a"}, []string{"unknown flag: --node"}},
		{"and arguments", []string{"--node-name=a", "now"}, []string{`"now"`}},
		{"with a configuration that is not there", []string{"--node-name=a", "--config=" + missing}, []string{"configuration file", missing}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd := newRootCommand()
			cmd.SetArgs(append([]string{"run"}, tc.args...))
			cmd.SetOut(io.Discard)
			cmd.SetErr(io.Discard)
			expect.Error(t, cmd.ExecuteContext(t.Context()), tc.said...)
		})
	}
}

func TestLoadConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if config, err := loadConfig(""); err != nil || config.ReservedCPUs != "" {
		t.Errorf("without a file: %v, %v", config, err)
	}
	write("apiVersion: topolet.dev/v1alpha1\nkind: Configuration\nreservedCPUs: 0-1\n")
	if config, err := loadConfig(path); err != nil || config.ReservedCPUs != "0-1" {
		t.Errorf("got %v, %v", config, err)
	}
	write("apiVersion: topolet.dev/v1alpha1\nkind: Configuration\nreserved: 0-1\n")
	_, err := loadConfig(path)
	expect.Error(t, err, "configuration file "+path, `"reserved"`, "its fields are")
}

func TestLevels(t *testing.T) {
	config := v1alpha1.Configuration{Levels: []v1alpha1.Level{v1alpha1.Machine, v1alpha1.L3, v1alpha1.Socket}}
	want := []allocator.Level{allocator.MachineLevel, allocator.L3Level, allocator.SocketLevel}
	if diff := cmp.Diff(want, levels(config)); diff != "" {
		t.Errorf("levels (-want +got):\n%s", diff)
	}
}

func TestReservedCPUs(t *testing.T) {
	m := topologytest.New(topologytest.Spec{CoresPerL3: 4, Threads: 2})
	config, err := loadConfig("")
	if err != nil {
		t.Fatal(err)
	}
	for list, want := range map[string]string{"": "0,4", "1-2": "1-2"} {
		config.ReservedCPUs = list
		got, err := reservedCPUs(m, config)
		if err != nil || got.String() != want {
			t.Errorf("reservedCPUs %q gives %s, %v, want %s", list, got, err, want)
		}
	}
}

func TestACheckpointThatCannotBeUsedIsKept(t *testing.T) {
	for name, content := range map[string]string{
		"not JSON":            "{",
		"of a future version": `{"version": 99, "grants": [], "more": true}`,
		"without a version":   `{"grants": []}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, checkpointName)
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			client := fake.NewClientset()
			notes := newNotifier(t.Context(), client, "worker")
			defer notes.shutdown()
			grants, _, err := loadGrants(t.Context(), allocator.FileStore{Path: path}, notes)
			if err != nil || len(grants) > 0 {
				t.Fatalf("loaded %v, %v", grants, err)
			}
			files, err := filepath.Glob(dir + "/*")
			if err != nil || len(files) != 1 || files[0] == path {
				t.Fatalf("the folder holds %v, %v", files, err)
			}
			kept, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(content, string(kept)); diff != "" {
				t.Errorf("the kept file (-before +after):\n%s", diff)
			}
			expect.State(t, "the Event", func() string {
				return strings.Join(slices.Collect(maps.Keys(events(t, client))), " ")
			}, "Node worker worker Warning CheckpointUnusable")
			for _, message := range events(t, client) {
				expect.Error(t, errors.New(message), files[0], "others of them cannot start until their pods are created anew")
			}
		})
	}
}

func TestBadGrantsAreSetAsideAndTheOthersStay(t *testing.T) {
	const part = `"parts": [{"request": "r", "domain": "numa-0", "count": 1, "cpus": "%s"}]`
	grant := func(uid, cpu string) string {
		return fmt.Sprintf(`{"uid": %q, "namespace": "n", "name": "c", "pods": [], `+part+`}`, uid, cpu)
	}
	dir := t.TempDir()
	store := allocator.FileStore{Path: filepath.Join(dir, checkpointName)}
	content := fmt.Sprintf(`{"version": 1, "grants": [%s, %s, %s]}`, grant("a", "1"), grant("kept", "2"), grant("b", "1"))
	if err := os.WriteFile(store.Path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	client := fake.NewClientset()
	notes := newNotifier(t.Context(), client, "worker")
	defer notes.shutdown()
	grants, quarantined, err := loadGrants(t.Context(), store, notes)
	if err != nil || quarantined != 2 || len(grants) != 1 || grants[0].UID != "kept" {
		t.Fatalf("loaded %v, quarantined %d, %v", grants, quarantined, err)
	}
	expect.State(t, "the Event", func() string {
		return strings.Join(slices.Collect(maps.Keys(events(t, client))), " ")
	}, "Node worker worker Warning CheckpointGrantsUnusable")
	aside, err := filepath.Glob(store.Path + ".unusable-*")
	if err != nil || len(aside) != 1 {
		t.Fatalf("kept files: %v, %v", aside, err)
	}
	for _, message := range events(t, client) {
		expect.Error(t, errors.New(message), aside[0], `claim n/c, "a"`, `claim n/c, "b"`, "has CPUs 1", "The other 1 are in force")
	}
	metrics := prometheus.NewRegistry()
	m := topologytest.New(topologytest.Spec{CoresPerL3: 4})
	ledger, err := allocator.NewLedger(m, allocator.Policy{ReservedCPUs: allocator.DefaultReserved(m)}, store, grants)
	if err != nil {
		t.Fatal(err)
	}
	metrics.MustRegister(newLedgerMetrics(ledger, quarantined))
	gathered, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := 0.0
	for _, f := range gathered {
		if f.GetName() == "topolet_checkpoint_quarantined_grants" {
			counted = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if counted != 2 {
		t.Errorf("the metric says %v", counted)
	}
	// The next start has nothing to complain of.
	if again, quarantined, err := loadGrants(t.Context(), store, nil); err != nil || quarantined != 0 || len(again) != 1 {
		t.Errorf("the next start: %v, %d, %v", again, quarantined, err)
	}
}

// events are the messages of the Events, by whom and what they are about.
func events(t *testing.T, client *fake.Clientset) map[string]string {
	t.Helper()
	list, err := client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range list.Items {
		about := e.InvolvedObject
		found[strings.Join([]string{about.Kind, about.Name, string(about.UID), e.Type, e.Reason}, " ")] = e.Message
	}
	return found
}

func TestACheckpointThatCanBeUsedStays(t *testing.T) {
	store := allocator.FileStore{Path: filepath.Join(t.TempDir(), checkpointName)}
	ctx := t.Context()
	for _, grants := range [][]allocator.Grant{nil, {{
		Claim: allocator.Claim{UID: "a"},
		Parts: []allocator.Part{{Request: allocator.Request{Name: "r", Domain: "numa-0", Count: 1}, CPUs: topology.NewCPUSet(1)}},
	}}} {
		got, _, err := loadGrants(ctx, store, nil)
		if grants != nil {
			if err := store.Save(grants); err != nil {
				t.Fatal(err)
			}
			got, _, err = loadGrants(ctx, store, nil)
		}
		if err != nil || len(got) != len(grants) {
			t.Errorf("loaded %v, %v", got, err)
		}
	}
}

// A disk that cannot be read is no reason to forget what was granted.
func TestACheckpointThatCannotBeReadStopsTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), checkpointName)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, _, err := loadGrants(t.Context(), allocator.FileStore{Path: path}, nil)
	expect.Error(t, err, "read checkpoint", "make the file readable", "drain the node and move it away")
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it was moved: %v", err)
	}
}

// The kernel lets nobody make files there.
func TestAStateFolderThatCannotBeWrittenStopsTheStart(t *testing.T) {
	_, err := lockStateDir(t.Context(), "/sys/kernel", func() {})
	expect.Error(t, err, "lock the state folder", "make folder /sys/kernel writable")
	_, err = lockStateDir(t.Context(), "/sys/kernel/topolet", func() {})
	expect.Error(t, err, "state folder", "make folder /sys/kernel writable")
}

func TestASecondInstanceWaitsForTheFirst(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	unlock, err := lockStateDir(t.Context(), dir, func() { t.Error("the first instance stands by") })
	if err != nil {
		t.Fatal(err)
	}
	stoodBy := false
	impatient, cancel := context.WithTimeout(t.Context(), 2*lockPoll)
	defer cancel()
	_, err = lockStateDir(impatient, dir, func() { stoodBy = true })
	expect.Error(t, err, "waiting for another topolet to release "+dir)
	if !stoodBy {
		t.Error("the second instance did not say that it stands by")
	}

	var waiting sync.WaitGroup
	waiting.Go(func() {
		unlock, err := lockStateDir(t.Context(), dir, func() {})
		if err != nil {
			t.Error(err)
			return
		}
		unlock()
	})
	unlock()
	waiting.Wait()
}

func TestHTTP(t *testing.T) {
	var mu sync.Mutex
	notReady := errors.New("not connected to the container runtime")
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "topolet_test", Help: "A test."}))
	ctx, cancel := context.WithCancel(t.Context())
	stuck := make(chan struct{})
	address, stopped, err := serveHTTP(ctx, "127.0.0.1:0", registry, probes{
		alive: func() { <-stuck },
		ready: func() error {
			mu.Lock()
			defer mu.Unlock()
			return notReady
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	limited, done := context.WithTimeout(ctx, 100*time.Millisecond)
	defer done()
	req, err := http.NewRequestWithContext(limited, http.MethodGet, "http://"+address+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close() //nolint:errcheck // only to close it
		t.Errorf("a stuck process answered %s", resp.Status)
	}
	close(stuck)
	for _, tc := range []struct {
		path string
		code int
		body string
	}{
		{"/healthz", http.StatusOK, "ok"},
		{"/readyz", http.StatusServiceUnavailable, "not connected to the container runtime"},
		{"/metrics", http.StatusOK, "topolet_test 0"},
		{"/", http.StatusNotFound, ""},
	} {
		wantAnswer(t, "http://"+address+tc.path, tc.code, tc.body)
	}
	mu.Lock()
	notReady = nil
	mu.Unlock()
	wantAnswer(t, "http://"+address+"/readyz", http.StatusOK, "ok")

	_, _, err = serveHTTP(ctx, address, registry, probes{})
	expect.Error(t, err, "flag --http-address", address)

	cancel()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("waited 10s for the server to end")
	}
}

func TestWithoutAnAddressThereIsNoServer(t *testing.T) {
	_, stopped, err := serveHTTP(t.Context(), "", nil, probes{})
	if err != nil {
		t.Fatal(err)
	}
	<-stopped
}

func wantAnswer(t *testing.T, url string, code int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != code || !strings.Contains(string(data), body) {
		t.Errorf("%s answers %d %q, want %d %q", url, answer.StatusCode, data, code, body)
	}
}
