package nriplugin

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/containerd/nri/pkg/api"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/topolet/topolet/allocator"
)

// Accounts is told about containers with claims whose pods request less than their
// claims hold. A claim and a request are two entries in the scheduler's books: where
// it does not add them up, it counts as free what is not.
type Accounts interface {
	// TooLittle is called before such a container is created, each time. An error
	// refuses the container.
	TooLittle(ctx context.Context, s ShortageError) error
}

// ShortageError is what a pod requests too little of.
type ShortageError struct {
	Namespace, Pod string
	UID            types.UID
	// Field is what in the pod's specification is too small, and Requested and Held are
	// quantities as one writes them there.
	Field           string
	Requested, Held string
}

func (s ShortageError) Error() string {
	return fmt.Sprintf("pod %s/%s field %s: %s is less than the %s that its claims hold: set it to %s",
		s.Namespace, s.Pod, s.Field, s.Requested, s.Held, s.Held)
}

// The kernel's CPU shares as the kubelet computes them
// (k8s.io/kubernetes/pkg/kubelet/cm/helpers_linux.go, MilliCPUToShares).
const (
	sharesPerCPU = 1024
	minShares    = 2
	maxShares    = 262144
)

// account compares what a container's pod requests with what its claims hold. What
// the runtime does not tell is not compared.
func (p *Plugin) account(ctx context.Context, pod *api.PodSandbox, ctr *api.Container, c allocator.Container) error {
	if len(c.Claims) == 0 {
		return nil
	}
	held := p.ledger.HeldBy(c)
	found := ShortageError{Namespace: c.PodNamespace, Pod: c.PodName, UID: types.UID(c.Pod)}
	if shares := pod.GetLinux().GetPodResources().GetCpu().GetShares().GetValue(); shares > 0 &&
		shares < uint64(min(held.CPUs*sharesPerCPU, maxShares)) { //nolint:gosec // a count
		found.Field, found.Requested, found.Held = "resources.requests[cpu]", cpuQuantity(shares), fmt.Sprint(held.CPUs)
		if err := p.accounts.TooLittle(ctx, found); err != nil {
			return err
		}
	}
	for _, limit := range ctr.GetLinux().GetResources().GetHugepageLimits() {
		size := pageBytes(limit.GetPageSize())
		if limit.GetLimit() > 0 || size == 0 {
			continue // a claim may be for several containers, each with a part of it
		}
		var bytes uint64
		for _, pages := range held.Memory {
			if pages.SizeBytes == size {
				bytes += pages.Bytes
			}
		}
		if bytes == 0 {
			continue
		}
		found.Field = fmt.Sprintf("containers[name=%s].resources.limits[%s%s]", c.Name, corev1.ResourceHugePagesPrefix, binary(size))
		found.Requested, found.Held = "0", binary(bytes)
		if err := p.accounts.TooLittle(ctx, found); err != nil {
			return err
		}
	}
	return nil
}

// pageBytes is the size of huge pages that the runtime calls 64KB, 2MB or 1GB, or 0
// for a name of another form.
func pageBytes(name string) uint64 {
	for suffix, unit := range map[string]uint64{"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30} {
		if number, ok := strings.CutSuffix(name, suffix); ok {
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return 0
			}
			return n * unit
		}
	}
	return 0
}

func binary(bytes uint64) string {
	return resource.NewQuantity(int64(min(bytes, math.MaxInt64)), resource.BinarySI).String()
}

// cpuQuantity is the request that the kubelet made shares of, rounded up to what it
// may have been.
func cpuQuantity(shares uint64) string {
	if shares <= minShares {
		return "0"
	}
	return fmt.Sprintf("%dm", (shares*1000+sharesPerCPU-1)/sharesPerCPU)
}
