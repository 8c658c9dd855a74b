package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/nriplugin"
	"github.com/topolet/topolet/nriplugin/partition"
)

// kernelOf finds out whether the kernel keeps others off claimed CPUs, as far as the
// configuration lets it. It fails where that is demanded and the host cannot.
func kernelOf(ctx context.Context, config v1alpha1.Configuration, root string, changed func()) (nriplugin.Kernel, error) {
	kernel := nriplugin.Kernel{Changed: changed, Required: config.Enforcement == v1alpha1.Kernel}
	if config.Enforcement == v1alpha1.Runtime {
		kernel.Why = "configuration field enforcement is " + string(config.Enforcement)
		return kernel, nil
	}
	tree, err := partition.Open(filepath.Join(root, "sys/fs/cgroup"))
	_, unsupported := errors.AsType[*partition.UnsupportedError](err)
	switch {
	case err == nil:
		kernel.Partitions = tree
	case kernel.Required:
		return kernel, fmt.Errorf("configuration field enforcement is %s: %w", config.Enforcement, err)
	case unsupported:
		kernel.Why = err.Error()
		klog.FromContext(ctx).Info("The kernel does not keep others off claimed CPUs, the container runtime has to", "reason", kernel.Why)
	default:
		return kernel, err
	}
	return kernel, nil
}
