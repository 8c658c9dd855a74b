package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/topolet/topolet/test/harness"
)

// limit is how long anything may take that the daemon is waited for.
const limit = 30 * time.Second

// daemon is a running topolet.
type daemon struct {
	cmd     *exec.Cmd
	address string
	log     *os.File
}

// stop ends the daemon as the kubelet does.
func (d *daemon) stop() error {
	defer d.log.Close()
	err := d.cmd.Process.Signal(syscall.SIGTERM)
	if ended := d.cmd.Wait(); ended != nil {
		return errors.Join(d.explain(fmt.Errorf("topolet ended: %w", ended)), err)
	}
	return err
}

// explain adds the end of the daemon's log to an error.
func (d *daemon) explain(err error) error {
	data, readErr := os.ReadFile(d.log.Name())
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w; the last it said:\n%s", err, data[max(0, len(data)-2000):])
}

// get asks the daemon's HTTP server.
func (d *daemon) get(ctx context.Context, path string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.address+path, http.NoBody)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return string(body), err
}

// wait returns when the daemon answers the path and what it says has all of this.
func (d *daemon) wait(ctx context.Context, what, path string, said ...string) error {
	err := harness.Wait(ctx, limit, what, func(ctx context.Context) error {
		body, err := d.get(ctx, path)
		if err != nil {
			return err
		}
		for _, line := range said {
			if !strings.Contains(body, line+"\n") {
				return fmt.Errorf("%s does not say %q", path, line)
			}
		}
		return nil
	})
	if err != nil {
		return d.explain(err)
	}
	return nil
}

// idle lets the time pass as on a node on which nothing happens: the kubelet
// probes the daemon, and Prometheus reads its metrics.
func (d *daemon) idle(ctx context.Context, length time.Duration) error {
	end := time.After(length)
	const interval = 5 * time.Second
	for n := 0; ; n++ {
		paths := []string{"/readyz"}
		if n%2 == 1 {
			paths = append(paths, "/healthz")
		}
		if n%6 == 5 {
			paths = append(paths, "/metrics")
		}
		for _, path := range paths {
			if _, err := d.get(ctx, path); err != nil {
				return d.explain(err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-time.After(interval):
		}
	}
}

// usage is what the kernel and the runtime of Go say of the process.
type usage struct {
	// rss is what of the process is in memory: anonymous is its own, file are
	// pages of its program. peak is the highest that rss was. In bytes.
	rss, anonymous, file, peak int64
	// heap is the memory of Go objects, also of those that are garbage.
	heap    int64
	threads int64
	// cpu is the time on CPUs since the process started.
	cpu time.Duration
}

func (d *daemon) usage(ctx context.Context) (usage, error) {
	metrics, err := d.get(ctx, "/metrics")
	if err != nil {
		return usage{}, err
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return usage{}, err
	}
	heap, cpu := number(metrics, "go_memstats_heap_inuse_bytes"), number(metrics, "process_cpu_seconds_total")
	kB := func(field string) int64 { return int64(number(string(status), field+":")) << 10 }
	u := usage{
		rss: kB("VmRSS"), anonymous: kB("RssAnon"), file: kB("RssFile"), peak: kB("VmHWM"),
		heap: int64(heap), threads: int64(number(string(status), "Threads:")),
		cpu: time.Duration(cpu * float64(time.Second)),
	}
	if u.rss == 0 || u.anonymous == 0 || u.peak == 0 || u.heap == 0 || u.threads == 0 || u.cpu == 0 {
		return usage{}, fmt.Errorf("process %d does not tell its memory: %+v", d.cmd.Process.Pid, u)
	}
	return u, nil
}

// number is the one behind the name in a text of a name and a number on each
// line; 0 if there is none.
func number(text, name string) float64 {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != name {
			continue
		}
		if n, err := strconv.ParseFloat(fields[1], 64); err == nil {
			return n
		}
	}
	return 0
}

// table prints the usage of a process, a row for each moment.
type table struct {
	out    io.Writer
	daemon *daemon
	cpu    time.Duration
}

func (t *table) head(o options) error {
	info, err := os.Stat(o.topolet)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(t.out, "512 CPUs, %d containers, %d of them with claims; GOMAXPROCS %d; program of %s\n\n%-28s %9s %9s %9s %9s %9s %8s %10s\n",
		o.containers, claims, o.maxProcs, mib(info.Size()), "", "VmRSS", "RssAnon", "RssFile", "VmHWM", "Go heap", "threads", "CPU time")
	return err
}

func (t *table) row(ctx context.Context, moment string) error {
	u, err := t.daemon.usage(ctx)
	if err != nil {
		return t.daemon.explain(err)
	}
	_, err = fmt.Fprintf(t.out, "%-28s %9s %9s %9s %9s %9s %8d %10s\n", moment, mib(u.rss), mib(u.anonymous), mib(u.file), mib(u.peak), mib(u.heap),
		u.threads, (u.cpu - t.cpu).Round(10*time.Millisecond))
	t.cpu = u.cpu
	return err
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
