package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"github.com/topolet/topolet/draplugin"
	"github.com/topolet/topolet/draplugin/v1alpha1"
	"github.com/topolet/topolet/nriplugin"
)

// accounts says what happens to pods that request less than their claims hold.
type accounts struct {
	mode  v1alpha1.CPURequests
	notes draplugin.Notifier
	// counted reports whether the scheduler counts what claims hold by itself.
	counted func() bool
}

// TooLittle implements [nriplugin.Accounts].
func (a *accounts) TooLittle(ctx context.Context, s nriplugin.ShortageError) error {
	switch {
	case a.mode == v1alpha1.Ignore || a.counted():
		return nil
	case a.mode == v1alpha1.Refuse:
		return s
	}
	klog.FromContext(ctx).Info("A pod requests less than its claims hold", "pod", klog.KRef(s.Namespace, s.Pod), "field", s.Field, "requested", s.Requested, "held", s.Held)
	a.notes.WarnAbout(ctx, corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: s.Namespace, Name: s.Pod, UID: s.UID,
	}, "RequestsTooLow", s.Error())
	return nil
}
