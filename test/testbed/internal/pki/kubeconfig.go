package pki

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
)

// WriteKubeconfig writes a kubeconfig for the identity name, with everything
// it needs inside, for the API server at url. An unchanged file is left as it
// is.
func (a *Authority) WriteKubeconfig(file, name, url string) error {
	var encoded [3]string
	for i, path := range []string{a.CAFile(), CertFile(a.dir, name), KeyFile(a.dir, name)} {
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", name, err)
		}
		encoded[i] = base64.StdEncoding.EncodeToString(data)
	}
	content := fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters:
- name: topolet-testbed
  cluster:
    server: %s
    certificate-authority-data: %s
users:
- name: %s
  user:
    client-certificate-data: %s
    client-key-data: %s
contexts:
- name: topolet-testbed
  context:
    cluster: topolet-testbed
    user: %s
current-context: topolet-testbed
`, url, encoded[0], name, encoded[1], encoded[2], name)
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", name, err)
	}
	return nil
}
