package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/test/demo/internal/picture"
	"github.com/topolet/topolet/test/harness"
	"github.com/topolet/topolet/topology"
)

const (
	upLimit      = time.Hour // a machine that has to build Kubernetes first
	installLimit = 15 * time.Minute
	podLimit     = 90 * time.Second
	settleLimit  = 20 * time.Second

	plainFile = "deploy/examples/plain-pod.yaml"
	claimFile = "deploy/examples/one-cpu.yaml"
)

// demo is one demonstration.
type demo struct {
	story   *story
	cluster *harness.Cluster
	podCIDR string
	// node are the CPUs of this machine.
	node topology.CPUSet

	before, during moment
}

// show goes through the steps and stops at the first that is not as it should be.
func (d *demo) show(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.bringUp, d.install, d.startPlain, d.startExclusive, d.deleteExclusive,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) bringUp(ctx context.Context) error {
	d.story.step("Kubernetes", "A real one-node cluster starts on this machine. Its programs are built from source the first time, which takes a while, and kept for the next.")
	ctx, cancel := context.WithTimeout(ctx, upLimit)
	defer cancel()
	return d.cluster.Up(ctx, "--pod-cidr", d.podCIDR)
}

func (d *demo) install(ctx context.Context) error {
	d.story.step("topolet", "Helm installs topolet as a DaemonSet. It publishes the node's CPUs to the scheduler.")
	ctx, cancel := context.WithTimeout(ctx, installLimit)
	defer cancel()
	done := d.story.working("Helm installs topolet, and is itself built the first time")
	err := d.cluster.Install(ctx)
	done()
	if err != nil {
		return err
	}
	if err := d.clear(ctx); err != nil {
		return err
	}
	return harness.Wait(ctx, podLimit, "topolet to publish the node's CPUs", func(ctx context.Context) error {
		n, err := d.published(ctx)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("no CPU can be claimed")
		}
		d.story.say(fmt.Sprintf("The node has %s; %d can be claimed, and the first core stays with the system.", cpus(d.node), n))
		return nil
	})
}

// clear removes the pods of an earlier demonstration that kept its cluster.
func (d *demo) clear(ctx context.Context) error {
	if _, err := d.cluster.Kubectl(ctx, "delete", "--ignore-not-found", "--timeout", podLimit.String(), "-f", claimFile, "-f", plainFile); err != nil {
		return err
	}
	return harness.Wait(ctx, settleLimit, "earlier claims to be released", func(ctx context.Context) error {
		m, err := look(ctx, d.cluster)
		if err == nil && m.claim != "" {
			err = fmt.Errorf("claim %s holds %s", m.claim, cpus(m.granted))
		}
		return err
	})
}

// published returns how many CPUs can be claimed.
func (d *demo) published(ctx context.Context) (int64, error) {
	published, err := d.cluster.Client.ResourceV1().ResourceSlices().List(ctx, metav1.ListOptions{FieldSelector: "spec.driver=" + draplugin.DriverName})
	if err != nil {
		return 0, fmt.Errorf("list what topolet publishes: %w", err)
	}
	var n int64
	for _, s := range published.Items {
		for _, device := range s.Spec.Devices {
			capacity := device.Capacity[draplugin.CapacityCPUs].Value
			n += capacity.Value()
		}
	}
	return n, nil
}

func (d *demo) startPlain(ctx context.Context) (err error) {
	d.story.step("Before", "A pod without a claim starts. It shares all CPUs with everyone else.")
	if err := d.start(ctx, plainFile, plainPod); err != nil {
		return err
	}
	if d.before, err = look(ctx, d.cluster); err != nil {
		return err
	}
	d.draw("before", d.before, "not there yet")
	d.story.blank()
	d.story.say("Granted are the CPUs of the container's claim in topolet's checkpoint. The rest is read from the kernel: cpuset.cpus.effective of its cgroup, Cpus_allowed_list of its processes.")
	return d.story.checks(checkBefore(d.before))
}

func (d *demo) startExclusive(ctx context.Context) (err error) {
	d.story.step("During", "A pod with a claim for one exclusive CPU starts beside it.")
	if err := d.start(ctx, claimFile, claimPod); err != nil {
		return err
	}
	// Looked at once and not waited for: it must be right from the start.
	if d.during, err = look(ctx, d.cluster); err != nil {
		return err
	}
	d.story.say(fmt.Sprintf("ResourceClaim %s was granted %s.", d.during.claim, cpus(d.during.granted)))
	d.draw("during", d.during, "does not run")

	var first harness.Line
	var left time.Time
	if err := d.fromLog(ctx, claimPod, "its first line", func(lines []harness.Line) error {
		if len(lines) == 0 {
			return errors.New("it is empty")
		}
		first = lines[0]
		return nil
	}); err != nil {
		return err
	}
	never := d.fromLog(ctx, plainPod, "it to leave "+cpus(d.during.granted), func(lines []harness.Line) (err error) {
		left, err = leftAt(lines, d.during.granted)
		return err
	})
	if never != nil {
		return errors.Join(d.story.checks(checkDuring(d.before, d.during, first, time.Time{})), never)
	}
	d.story.events(
		event{left, fmt.Sprintf("%s writes in its log that it is off %s", plainPod, cpus(d.during.granted))},
		event{first.Time, fmt.Sprintf("%s runs its first instruction", claimPod)})
	return d.story.checks(checkDuring(d.before, d.during, first, left))
}

func (d *demo) deleteExclusive(ctx context.Context) error {
	d.story.step("After", "The pod with the claim is deleted, and its CPU returns to everyone.")
	d.story.command("kubectl delete pod " + claimPod)
	pool := d.before.kernels[plainPod].Allowed
	deleted := time.Now()
	if err := d.cluster.Client.CoreV1().Pods(namespace).Delete(ctx, claimPod, metav1.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete pod %s: %w", claimPod, err)
	}
	var back time.Time
	waited := d.fromLog(ctx, plainPod, "it to run on "+cpus(pool)+" again", func(lines []harness.Line) (err error) {
		back, err = backAt(lines, pool)
		return err
	})
	var after moment
	settled := harness.Wait(ctx, settleLimit, "the pool to be whole", func(ctx context.Context) (err error) {
		if after, err = look(ctx, d.cluster); err != nil {
			return err
		}
		for _, c := range checkAfter(d.before, after) {
			if !c.right() {
				return fmt.Errorf("%s: seen %s", c.what, c.seen)
			}
		}
		return nil
	})
	if settled != nil && after.kernels == nil {
		return errors.Join(waited, settled)
	}
	d.draw("after", after, "deleted")
	if waited == nil {
		d.story.events(
			event{deleted, "the deletion of " + claimPod + " is asked for"},
			event{back, fmt.Sprintf("%s writes in its log that it is on %s", plainPod, cpus(pool))})
	}
	return errors.Join(d.story.checks(checkAfter(d.before, after)), waited)
}

// start applies a file and waits until its pod runs, or has failed for good.
func (d *demo) start(ctx context.Context, file, pod string) error {
	d.story.command("kubectl apply -f " + file)
	if _, err := d.cluster.Kubectl(ctx, "apply", "-f", file); err != nil {
		return err
	}
	var failed error
	waited := harness.Wait(ctx, podLimit, "pod "+pod+" to run", func(ctx context.Context) error {
		p, err := d.cluster.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("get pod %s: %w", pod, err)
		}
		if failed = failure(p); failed != nil {
			return nil //nolint:nilerr // it ends the waiting, and is returned below
		}
		if err := d.cluster.Running(ctx, namespace, pod, container); err != nil {
			return err
		}
		m, err := look(ctx, d.cluster)
		if err != nil {
			return err
		}
		return m.runs(pod)
	})
	return errors.Join(waited, failed)
}

// failure says why a pod will never run, or returns nil.
func failure(p *corev1.Pod) error {
	if p.Status.Phase != corev1.PodFailed && p.Status.Phase != corev1.PodSucceeded {
		return nil
	}
	why := []string{p.Status.Reason, p.Status.Message}
	for _, c := range p.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil {
			why = append(why, t.Reason, t.Message)
		}
	}
	why = slices.DeleteFunc(why, func(s string) bool { return s == "" })
	return fmt.Errorf("pod %s was to run and is %s: %s", p.Name, p.Status.Phase, strings.Join(why, ": "))
}

// fromLog waits until a pod's log has what is looked for.
func (d *demo) fromLog(ctx context.Context, pod, what string, find func([]harness.Line) error) error {
	return harness.Wait(ctx, settleLimit, fmt.Sprintf("the log of %s: %s", pod, what), func(ctx context.Context) error {
		lines, err := d.cluster.Lines(ctx, namespace, pod, container)
		if err != nil {
			return err
		}
		return find(lines)
	})
}

func (d *demo) draw(title string, m moment, absent string) {
	d.story.blank()
	picture.Draw(d.story.out, d.story.palette, title, d.node, m.rows(absent))
}
