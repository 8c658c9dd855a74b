// Package pki makes the certificates, keys and kubeconfig files of one
// cluster: a single authority that signs every server and every client.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// lifetime of everything that is signed here; a testbed does not live longer.
const lifetime = 365 * 24 * time.Hour

// Identity is what one certificate says.
type Identity struct {
	// Name is the base name of its files, NAME.crt and NAME.key.
	Name string
	// CommonName and Organization are the user and the group that Kubernetes
	// takes from a client certificate.
	CommonName   string
	Organization []string
	// DNSNames and IPs are what a server is reached as; empty for clients.
	DNSNames []string
	IPs      []net.IP
}

// Authority signs certificates and keeps them in a folder.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// CAFile is the authority's certificate.
func (a *Authority) CAFile() string { return CertFile(a.dir, "ca") }

// CertFile and KeyFile are the files of one identity in dir.
func CertFile(dir, name string) string { return filepath.Join(dir, name+".crt") }

// KeyFile is the private key that belongs to CertFile.
func KeyFile(dir, name string) string { return filepath.Join(dir, name+".key") }

// Open loads the authority kept in dir, or makes it if there is none or it is
// about to expire.
func Open(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of certificates: %w", err)
	}
	a := &Authority{dir: dir}
	cert, key, err := load(dir, "ca")
	if err == nil && time.Until(cert.NotAfter) > 24*time.Hour {
		a.cert, a.key = cert, key
		return a, nil
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "topolet-testbed"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	if a.key, err = newKey(); err != nil {
		return nil, err
	}
	if a.cert, err = sign(template, template, &a.key.PublicKey, a.key); err != nil {
		return nil, err
	}
	return a, store(dir, "ca", a.cert, a.key)
}

// In is the same authority with another folder, for what leaves this host:
// certificates and their keys, but never the authority's own.
func (a *Authority) In(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of certificates: %w", err)
	}
	if err := writePEM(CertFile(dir, "ca"), "CERTIFICATE", a.cert.Raw); err != nil {
		return nil, err
	}
	return &Authority{dir: dir, cert: a.cert, key: a.key}, nil
}

// Ensure makes the certificate of id unless the folder has one that says the
// same, is signed by this authority and is valid for another day.
func (a *Authority) Ensure(id Identity) error {
	cert, _, err := load(a.dir, id.Name)
	if err == nil && a.serves(cert, id) {
		return nil
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.CommonName, Organization: id.Organization},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		DNSNames:    id.DNSNames,
		IPAddresses: id.IPs,
	}
	if len(id.DNSNames)+len(id.IPs) > 0 {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if cert, err = sign(template, a.cert, &key.PublicKey, a.key); err != nil {
		return err
	}
	return store(a.dir, id.Name, cert, key)
}

func (a *Authority) serves(cert *x509.Certificate, id Identity) bool {
	sameIP := slices.EqualFunc(cert.IPAddresses, id.IPs, func(x, y net.IP) bool { return x.Equal(y) })
	return sameIP && slices.Equal(cert.DNSNames, id.DNSNames) &&
		cert.Subject.CommonName == id.CommonName &&
		slices.Equal(cert.Subject.Organization, id.Organization) &&
		time.Until(cert.NotAfter) > 24*time.Hour &&
		cert.CheckSignatureFrom(a.cert) == nil
}

// EnsureKey makes a key pair without a certificate: NAME.key and NAME.pub.
// Service account tokens are signed with one.
func (a *Authority) EnsureKey(name string) error {
	file := KeyFile(a.dir, name)
	if _, err := readKey(file); err == nil {
		return nil
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("encode the key %s: %w", name, err)
	}
	if err := writePEM(PublicKeyFile(a.dir, name), "PUBLIC KEY", public); err != nil {
		return err
	}
	return writeKey(file, key)
}

// PublicKeyFile is the public half of a key made by EnsureKey.
func PublicKeyFile(dir, name string) string { return filepath.Join(dir, name+".pub") }

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	template.SerialNumber = serial
	// A clock that is set back a little must not make the cluster unusable.
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = template.NotBefore.Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", template.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

func load(dir, name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(CertFile(dir, name))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, nil, errors.New("no PEM block")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	key, err := readKey(KeyFile(dir, name))
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("certificate and key do not belong together")
	}
	return cert, key, nil
}

func readKey(file string) (*ecdsa.PrivateKey, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block")
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

// store writes the key last: a pair that was interrupted half way fails to
// load and is made again.
func store(dir, name string, cert *x509.Certificate, key *ecdsa.PrivateKey) error {
	if err := writePEM(CertFile(dir, name), "CERTIFICATE", cert.Raw); err != nil {
		return err
	}
	return writeKey(KeyFile(dir, name), key)
}

func writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode a key: %w", err)
	}
	return writePEM(file, "EC PRIVATE KEY", der)
}

func writePEM(file, kind string, der []byte) error {
	data := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	mode := fs.FileMode(0o644)
	if kind == "EC PRIVATE KEY" {
		mode = 0o600
	}
	if err := os.WriteFile(file, data, mode); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(file), err)
	}
	return nil
}
