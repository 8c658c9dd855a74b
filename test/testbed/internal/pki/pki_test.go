package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"
)

var server = Identity{Name: "apiserver", CommonName: "kube-apiserver", DNSNames: []string{"localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ensure(t *testing.T, a *Authority, id Identity) *x509.Certificate {
	t.Helper()
	if err := a.Ensure(id); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(CertFile(a.dir, id.Name), KeyFile(a.dir, id.Name))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func verify(a *Authority, cert *x509.Certificate, name string, usage x509.ExtKeyUsage) error {
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestCertificatesServeTheirPurpose(t *testing.T) {
	a := open(t, t.TempDir())
	s := ensure(t, a, server)
	for _, name := range []string{"localhost", "127.0.0.1"} {
		if err := verify(a, s, name, x509.ExtKeyUsageServerAuth); err != nil {
			t.Errorf("server as %s: %v", name, err)
		}
	}
	node := ensure(t, a, Identity{Name: "kubelet", CommonName: "system:node:n1", Organization: []string{"system:nodes"}})
	if err := verify(a, node, "", x509.ExtKeyUsageClientAuth); err != nil {
		t.Errorf("client: %v", err)
	}
	if err := verify(a, node, "", x509.ExtKeyUsageServerAuth); err == nil {
		t.Error("a client's certificate passes for a server's")
	}
	if node.Subject.CommonName != "system:node:n1" || len(node.Subject.Organization) != 1 {
		t.Errorf("subject %v", node.Subject)
	}
}

func TestEnsureKeepsWhatServes(t *testing.T) {
	dir := t.TempDir()
	first := ensure(t, open(t, dir), server)
	if again := ensure(t, open(t, dir), server); !again.Equal(first) {
		t.Error("a certificate that serves was replaced")
	}
	moved := server
	moved.IPs = append([]net.IP{net.IPv4(10, 214, 0, 1)}, server.IPs...)
	if other := ensure(t, open(t, dir), moved); other.Equal(first) {
		t.Error("a certificate without a new address was kept")
	}
}

func TestDamagedFilesAreMadeAgain(t *testing.T) {
	dir := t.TempDir()
	ensure(t, open(t, dir), server)
	if err := os.WriteFile(KeyFile(dir, server.Name), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	ensure(t, open(t, dir), server)

	if err := os.Remove(KeyFile(dir, "ca")); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir)
	if err := verify(a, ensure(t, a, server), "localhost", x509.ExtKeyUsageServerAuth); err != nil {
		t.Errorf("after a new authority: %v", err)
	}
}

func TestKeysAreSecret(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	ensure(t, a, server)
	if err := a.EnsureKey("service-account"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca", server.Name, "service-account"} {
		info, err := os.Stat(KeyFile(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s.key has mode %v", name, info.Mode())
		}
	}
}

func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	ensure(t, a, Identity{Name: "admin", CommonName: "admin", Organization: []string{"system:masters"}})
	file := filepath.Join(dir, "kc", "admin")
	if err := a.WriteKubeconfig(file, "admin", "https://127.0.0.1:6443"); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	if config.Clusters[0].Cluster.Server != "https://127.0.0.1:6443" || len(config.Clusters[0].Cluster.CA) == 0 {
		t.Errorf("cluster: %+v", config.Clusters)
	}
	if _, err := tls.X509KeyPair(config.Users[0].User.Cert, config.Users[0].User.Key); err != nil {
		t.Errorf("user: %v", err)
	}
}
