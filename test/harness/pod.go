package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Running returns nil when a pod's container runs, of whatever kind, and else what
// it does instead.
func (c *Cluster) Running(ctx context.Context, namespace, pod, container string) error {
	p, err := c.Client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get pod %s/%s: %w", namespace, pod, err)
	}
	_, err = containerID(p, container)
	return err
}

// containerID is the runtime's id of a container that runs.
func containerID(p *corev1.Pod, container string) (string, error) {
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses) {
		if s.Name != container {
			continue
		}
		if s.State.Running == nil {
			return "", fmt.Errorf("container %s of pod %s/%s does not run: %+v", container, p.Namespace, p.Name, s.State)
		}
		_, id, _ := strings.Cut(s.ContainerID, "://")
		return id, nil
	}
	return "", fmt.Errorf("container %s of pod %s/%s has no status yet (pod %s: %s)", container, p.Namespace, p.Name, p.Status.Phase, conditionsOf(p))
}

func conditionsOf(p *corev1.Pod) string {
	var said []string
	for _, condition := range p.Status.Conditions {
		if condition.Status != corev1.ConditionTrue && condition.Message != "" {
			said = append(said, condition.Message)
		}
	}
	return strings.Join(said, "; ")
}

// Line is a line of the workload image's log: where the kernel lets it run.
type Line struct {
	// Event is "start" at the first instruction and "change" afterwards.
	Event       string    `json:"event"`
	Time        time.Time `json:"time"`
	CPUsAllowed string    `json:"cpusAllowed"`
}

// Lines returns the log of a container of the workload image.
func (c *Cluster) Lines(ctx context.Context, namespace, pod, container string) ([]Line, error) {
	raw, err := c.Client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("log of pod %s/%s: %w", namespace, pod, err)
	}
	var lines []Line
	for text := range strings.Lines(string(raw)) {
		var line Line
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			return nil, fmt.Errorf("log of pod %s/%s: %q: %w", namespace, pod, text, err)
		}
		lines = append(lines, line)
	}
	return lines, nil
}
