package draplugin

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/topology/device"
)

// healthInterval is well inside the 30 s after which the kubelet forgets a
// device's health.
const healthInterval = 5 * time.Second

// WatchHealthStatus implements [kubeletplugin.DRAPlugin]: it reports all devices
// now and then again until the context ends.
func (p *Plugin) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case reports <- p.health(time.Now()):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// health says of each device whether what is granted from it can be kept. The
// kubelet passes it on to all pods that hold the device: where some claims lost
// CPUs and others did not, only the claims' own status tells, and the device is
// healthy. A device that grants refer to and that the machine no longer has is
// reported too: pods that hold it want to know.
func (p *Plugin) health(now time.Time) kubeletplugin.DeviceHealthReport {
	problems := map[string]string{}
	inv := p.ledger.Inventory()
	for _, d := range inv.Domains {
		problems[d.Name] = ""
	}
	for _, d := range inv.Memory {
		problems[d.Name] = ""
	}
	for _, d := range inv.Devices {
		problems[d.Name] = brokenBy(d)
	}
	type holding struct {
		claim                  allocator.ClaimUID
		request, domain, share string
	}
	holdingOf := func(claim allocator.Claim, part allocator.Part) holding {
		return holding{claim.UID, part.Name, part.Domain, part.Share}
	}
	lost := map[holding]bool{}
	for _, c := range p.ledger.Conflicts() {
		if c.Part.Domain != "" {
			problems[c.Part.Domain] = c.Message
			lost[holdingOf(c.Claim, c.Part)] = true
		}
	}
	for _, f := range p.findings(nil) {
		if f.wrong() {
			problems[f.domain] = f.message
			lost[holding{f.claim, f.request, f.domain, f.share}] = true
		}
	}
	for _, g := range p.ledger.Grants() {
		for _, part := range g.Parts {
			if !lost[holdingOf(g.Claim, part)] && part.Hardware == nil {
				problems[part.Domain] = ""
			}
		}
	}
	if err := p.runtime.Ready(); err != nil {
		for name := range problems {
			problems[name] = err.Error()
		}
	}
	var report kubeletplugin.DeviceHealthReport
	for name, problem := range problems {
		report.Devices = append(report.Devices, deviceHealth(p.opts.NodeName, name, problem, now))
	}
	return report
}

func deviceHealth(pool, device, problem string, now time.Time) kubeletplugin.DeviceHealth {
	health := kubeletplugin.HealthStatusHealthy
	if problem != "" {
		health = kubeletplugin.HealthStatusUnhealthy
	}
	return kubeletplugin.DeviceHealth{
		PoolName:    pool,
		DeviceName:  device,
		Health:      health,
		LastUpdated: now,
		Message:     problem,
	}
}

// brokenBy is what keeps a device from working at present, by its taints; empty for
// nothing.
func brokenBy(d device.Device) string {
	for _, t := range d.Taints {
		switch t.Reason {
		case device.Unhealthy, device.InReset, device.DriverLost, device.RebindStuck, device.Gone:
			return strings.TrimSpace(fmt.Sprintf("device %s is %s %s", d.Name, t.Reason, t.Value))
		case device.ControlOnly, device.Unmanaged, device.ProfilePending, device.MonitorOnly:
		}
	}
	return ""
}
