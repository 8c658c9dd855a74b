package draplugin

import (
	"context"
	"time"

	"k8s.io/dynamic-resource-allocation/kubeletplugin"
)

// healthInterval is well inside the 30 s after which the kubelet forgets a
// device's health.
const healthInterval = 10 * time.Second

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

// health says of each device whether what is granted from it can be kept. A
// device that grants refer to and that the machine no longer has is reported
// too: pods that hold it want to know.
func (p *Plugin) health(now time.Time) kubeletplugin.DeviceHealthReport {
	problems := map[string]string{}
	for _, c := range p.ledger.Conflicts() {
		if c.Domain != "" {
			problems[c.Domain] = c.Message
		}
	}
	if err := p.runtime.Ready(); err != nil {
		for _, d := range p.ledger.Domains() {
			problems[d.Name] = err.Error()
		}
	}
	names := map[string]bool{}
	for _, d := range p.ledger.Domains() {
		names[d.Name] = true
	}
	for name := range problems {
		names[name] = true
	}
	var report kubeletplugin.DeviceHealthReport
	for name := range names {
		report.Devices = append(report.Devices, deviceHealth(p.opts.NodeName, name, problems[name], now))
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
