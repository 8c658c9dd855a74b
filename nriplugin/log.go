package nriplugin

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"
)

// stubLogger passes the stub's messages on; what matters of them is returned as
// an error as well.
type stubLogger struct{}

func (stubLogger) Debugf(ctx context.Context, format string, args ...any) { say(ctx, 6, format, args) }
func (stubLogger) Infof(ctx context.Context, format string, args ...any)  { say(ctx, 4, format, args) }
func (stubLogger) Warnf(ctx context.Context, format string, args ...any)  { say(ctx, 2, format, args) }
func (stubLogger) Errorf(ctx context.Context, format string, args ...any) { say(ctx, 2, format, args) }

func say(ctx context.Context, level int, format string, args []any) {
	if logger := klog.FromContext(ctx).V(level); logger.Enabled() {
		logger.Info("NRI: " + fmt.Sprintf(format, args...))
	}
}
