package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/topolet/topolet/test/bench/churn/sample"
	"github.com/topolet/topolet/test/harness"
)

const (
	samplerEndLimit = 2 * time.Minute
	// samplerSlack is how long the sampler goes on after the time of the run, if nobody
	// ends it.
	samplerSlack = 15 * time.Minute
)

// observer is the sampler on the node, a program of its own: where the node is a virtual
// machine, its files are too far away to be read one by one.
type observer struct {
	node    harness.Node
	program string // on the node
	dir     string

	mu   sync.Mutex // for uids and their file
	uids strings.Builder
}

// startObserver builds the sampler, puts it on the node and starts it.
func (b *bench) startObserver(ctx context.Context, dir string) (*observer, error) {
	program := filepath.Join(b.Var("TESTBED_STATE"), "churn-sampler")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./test/bench/churn/sampler")
	cmd.Dir, cmd.Env, cmd.Stderr = b.Source, append(os.Environ(), "CGO_ENABLED=0"), b.progress
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build the sampler: %w", err)
	}
	o := &observer{node: b.node, program: program, dir: dir}
	if b.options.machine == numaMachine {
		content, err := os.ReadFile(program)
		if err != nil {
			return nil, err
		}
		// The channel can write a program only over another one. The machine needs no ctr
		// any more: its images were imported when its disk was made.
		o.program = b.Var("TESTBED_CTR")
		if err := b.node.WriteFile(o.program, string(content)); err != nil {
			return nil, fmt.Errorf("put the sampler into the machine: %w", err)
		}
	}
	kubepods := "/sys/fs/cgroup" + b.Var("TESTBED_CGROUP") + "/kubepods"
	if _, err := b.node.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		kubepods = "/sys/fs/cgroup/cpuset" + b.Var("TESTBED_CGROUP") + "/kubepods"
	}
	_, err := b.node.Run(ctx, o.program, "-detach", "-dir="+dir, "-kubepods="+kubepods,
		"-limit="+(b.options.duration+samplerSlack).String())
	if err != nil {
		return nil, fmt.Errorf("start the sampler: %w", err)
	}
	return o, harness.Wait(ctx, setupLimit, "the sampler's first result", func(context.Context) error {
		_, err := o.result()
		return err
	})
}

// exclusive tells the sampler of a pod.
func (o *observer) exclusive(uid string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.uids.WriteString(uid + "\n")
	if err := o.node.WriteFile(filepath.Join(o.dir, sample.UIDsFile), o.uids.String()); err != nil {
		return fmt.Errorf("tell the sampler of a pod: %w", err)
	}
	return nil
}

// result is what the sampler saw until a second ago.
func (o *observer) result() (sample.Result, error) {
	var r sample.Result
	data, err := o.node.ReadFile(filepath.Join(o.dir, sample.ResultFile))
	if err != nil {
		return r, fmt.Errorf("result of the sampler: %w", err)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("result of the sampler: %q: %w", data, err)
	}
	return r, nil
}

// end ends the sampler and returns its last result.
func (o *observer) end(ctx context.Context) (sample.Result, error) {
	if err := o.exclusive(sample.End); err != nil {
		return sample.Result{}, err
	}
	var r sample.Result
	err := harness.Wait(ctx, samplerEndLimit, "the sampler to end", func(context.Context) error {
		var err error
		if r, err = o.result(); err == nil && !r.Ended {
			err = fmt.Errorf("it goes on after %d samples", r.Samples)
		}
		return err
	})
	if err == nil && r.Error != "" {
		err = errors.New("the sampler: " + r.Error)
	}
	return r, err
}

// fetch returns a page of a server on the node.
func (o *observer) fetch(ctx context.Context, address string) (string, error) {
	return o.node.Run(ctx, o.program, "-fetch="+address)
}
