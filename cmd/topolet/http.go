package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
)

const shutdownLimit = 2 * time.Second

// probes answer the kubelet.
type probes struct {
	// alive returns unless the process is stuck, which is what a restart mends.
	alive func()
	// ready returns nil while claims can be served.
	ready func() error
}

// serveHTTP answers the kubelet's probes, as /healthz and /readyz, and Prometheus
// until the context ends. It returns the address on which it listens; the channel
// is closed when the server has stopped.
func serveHTTP(ctx context.Context, address string, metrics prometheus.Gatherer, p probes) (string, <-chan struct{}, error) {
	stopped := make(chan struct{})
	if address == "" {
		close(stopped)
		return "", stopped, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("flag --http-address: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		p.alive()
		answer(w, nil)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, p.ready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			klog.FromContext(ctx).Error(err, "HTTP server ended")
		}
	}()
	go func() {
		defer close(stopped)
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownLimit)
		defer cancel()
		if err := server.Shutdown(limited); err != nil {
			server.Close() //nolint:errcheck // the process ends
		}
	}()
	return listener.Addr().String(), stopped, nil
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}
