package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/topolet/topolet/draplugin"
)

// notifier attaches Events to the node and to other objects.
type notifier struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	node        *corev1.ObjectReference
}

func newNotifier(ctx context.Context, client kubernetes.Interface, nodeName string) *notifier {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &notifier{
		broadcaster: broadcaster,
		recorder:    broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: draplugin.DriverName, Host: nodeName}),
		// The UID of a node in its events is its name, as the kubelet has it.
		node: &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: nodeName, UID: types.UID(nodeName)},
	}
}

// Warn implements [draplugin.Notifier].
func (n *notifier) Warn(_ context.Context, reason, message string) {
	n.recorder.Event(n.node, corev1.EventTypeWarning, reason, message)
}

// WarnAbout implements [draplugin.Notifier].
func (n *notifier) WarnAbout(_ context.Context, about corev1.ObjectReference, reason, message string) {
	n.recorder.Event(&about, corev1.EventTypeWarning, reason, message)
}

func (n *notifier) shutdown() { n.broadcaster.Shutdown() }
