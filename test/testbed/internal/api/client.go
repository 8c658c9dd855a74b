// Package api asks the cluster's servers the few questions that the testbed
// has: whether they are healthy, and whether the node is ready.
package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/topolet/topolet/test/testbed/internal/pki"
)

// Client speaks HTTPS as one identity of the cluster.
type Client struct{ http *http.Client }

// New reads the identity's certificate, and the authority's, from dir.
func New(dir, identity string) (*Client, error) {
	cert, err := tls.LoadX509KeyPair(pki.CertFile(dir, identity), pki.KeyFile(dir, identity))
	if err != nil {
		return nil, fmt.Errorf("load the certificate of %s (made by `testbed up`): %w", identity, err)
	}
	ca, err := os.ReadFile(pki.CertFile(dir, "ca"))
	if err != nil {
		return nil, fmt.Errorf("load the authority's certificate (made by `testbed up`): %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the authority's certificate is unreadable: run `testbed down` and `testbed up`")
	}
	return &Client{&http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, MinVersion: tls.VersionTLS12},
			// The servers are on this host, whatever the environment says.
			Proxy: nil,
			// A server that was replaced must not be asked over the old connection.
			DisableKeepAlives: true,
		},
	}}, nil
}

// Get asks for address. An answer other than 200 is an error with its first line.
// The body is decoded into out unless out is nil.
func (c *Client) Get(ctx context.Context, address string, out any) error {
	body, err := c.do(ctx, http.MethodGet, address)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(body, out)
}

// Delete deletes what is at address. That it is not there is no error.
func (c *Client) Delete(ctx context.Context, address string) error {
	_, err := c.do(ctx, http.MethodDelete, address)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// do returns the body of an answer of 200. One of 404 is fs.ErrNotExist.
func (c *Client) do(ctx context.Context, method, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return body, nil
	}
	line, _, _ := strings.Cut(string(body), "\n")
	err = fmt.Errorf("%s: %s", resp.Status, line)
	if resp.StatusCode == http.StatusNotFound {
		err = notFoundError{err}
	}
	return nil, err
}

// notFoundError is fs.ErrNotExist in the server's words.
type notFoundError struct{ error }

func (notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// NodeReady returns nil when the node is Ready and has renewed its lease since
// the given time; otherwise the reason why it is not.
func (c *Client) NodeReady(ctx context.Context, server, node string, since time.Time) error {
	var n struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := c.Get(ctx, server+"/api/v1/nodes/"+node, &n); err != nil {
		return err
	}
	ready := errors.New("the node has no Ready condition yet")
	for _, cond := range n.Status.Conditions {
		if cond.Type == "Ready" {
			ready = nil
			if cond.Status != "True" {
				ready = fmt.Errorf("condition Ready is %s: %s", cond.Status, cond.Message)
			}
		}
	}
	if ready != nil {
		return ready
	}
	// The condition outlives the kubelet by most of a minute; the lease tells
	// whether it was this kubelet that spoke.
	var lease struct{ Spec struct{ RenewTime time.Time } }
	if err := c.Get(ctx, server+"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+node, &lease); err != nil {
		return err
	}
	if lease.Spec.RenewTime.Before(since) {
		return fmt.Errorf("the kubelet has not renewed the node's lease since it started; last renewed %s", lease.Spec.RenewTime.Format(time.RFC3339))
	}
	return nil
}

// PodsKnown returns nil when the kubelet knows every pod that is bound to the
// node; otherwise which it does not know. A kubelet that has just started
// denies that its pods exist.
func (c *Client) PodsKnown(ctx context.Context, server, node, kubelet string) error {
	type pods struct {
		Items []struct {
			Metadata struct{ UID, Namespace, Name string }
			Status   struct{ Phase string }
		}
	}
	var bound, known pods
	if err := c.Get(ctx, server+"/api/v1/pods?fieldSelector=spec.nodeName%3D"+url.QueryEscape(node), &bound); err != nil {
		return err
	}
	if err := c.Get(ctx, kubelet+"/pods", &known); err != nil {
		return fmt.Errorf("ask the kubelet for its pods: %w", err)
	}
	have := map[string]bool{}
	for _, p := range known.Items {
		have[p.Metadata.UID] = true
	}
	for _, p := range bound.Items {
		over := p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed"
		if !over && !have[p.Metadata.UID] {
			return fmt.Errorf("the kubelet does not know the pod %s/%s yet", p.Metadata.Namespace, p.Metadata.Name)
		}
	}
	return nil
}
