package channel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client asks the server in the guest.
type Client struct {
	// URL is the server's address.
	URL string
}

var connection = &http.Client{Transport: &http.Transport{
	// The server is on this host, whatever the environment says.
	Proxy: nil,
	// After a reset the old connections lead nowhere.
	DisableKeepAlives: true,
}}

// do returns the body of a successful answer. An answer of 404 is fs.ErrNotExist.
func (c Client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+(&url.URL{Path: path}).EscapedPath(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := connection.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the guest: %w", err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the guest: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return data, nil
	}
	err = errors.New(strings.TrimSpace(string(data)))
	if resp.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return nil, fmt.Errorf("in the guest: %w", err)
}

// Read returns the content of a file.
func (c Client) Read(ctx context.Context, path string) (string, error) {
	data, err := c.do(ctx, http.MethodGet, "/files"+path, nil)
	return string(data), err
}

// List returns the entries of a folder.
func (c Client) List(ctx context.Context, dir string) ([]Entry, error) {
	data, err := c.do(ctx, http.MethodGet, "/files"+dir, nil)
	if err != nil {
		return nil, err
	}
	var entries []Entry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("%s in the guest is no folder: %w", dir, err)
	}
	return entries, nil
}

// Write writes a file.
func (c Client) Write(ctx context.Context, path, content string) error {
	_, err := c.do(ctx, http.MethodPut, "/files"+path, []byte(content))
	return err
}

// Exec runs a program. That it fails is no error, but in the result.
func (c Client) Exec(ctx context.Context, command Command) (Result, error) {
	var result Result
	body, err := json.Marshal(command)
	if err != nil {
		return result, err
	}
	data, err := c.do(ctx, http.MethodPost, "/exec", body)
	if err != nil {
		return result, err
	}
	return result, json.Unmarshal(data, &result)
}

// Kill sends a signal.
func (c Client) Kill(ctx context.Context, k Kill) error {
	body, err := json.Marshal(k)
	if err != nil {
		return err
	}
	_, err = c.do(ctx, http.MethodPost, "/kill", body)
	return err
}

// BootID is different after each start of the guest's kernel. It is also the
// quick way to learn whether the guest answers.
func (c Client) BootID(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return c.Read(ctx, "/proc/sys/kernel/random/boot_id")
}
