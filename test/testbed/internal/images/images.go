// Package images makes container images out of single static programs, and
// archives of them that a runtime can import. The same program always gives
// the same image, byte for byte.
package images

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is an image with one program in it.
type Image struct {
	// Ref is the full name, docker.io/FOLDER/NAME:TAG. A short one would be
	// looked up elsewhere.
	Ref string
	// Program is the path of the static executable on this host.
	Program string
	// Path is where it is in the image; it is also the entrypoint.
	Path string
	// User is the numeric user that runs it; empty for root.
	User string
}

// epoch is the time of everything in an image.
var epoch = time.Unix(0, 0).UTC()

// Build makes the image.
func (i Image) Build() (v1.Image, error) {
	content, err := layer(i.Program, i.Path)
	if err != nil {
		return nil, fmt.Errorf("make the image %s: %w", i.Ref, err)
	}
	// Not compressed: the archive only moves from one folder to another.
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(content, types.DockerUncompressedLayer))
	if err != nil {
		return nil, fmt.Errorf("make the image %s: %w", i.Ref, err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("make the image %s: %w", i.Ref, err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Created = v1.Time{Time: epoch}
	config.Config.Entrypoint = []string{i.Path}
	config.Config.Env = []string{"PATH=/"}
	config.Config.User = i.User
	for n := range config.History {
		config.History[n].Created = v1.Time{Time: epoch}
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return nil, fmt.Errorf("make the image %s: %w", i.Ref, err)
	}
	return img, nil
}

// Digest identifies the image: it changes with the content and the
// configuration, and with nothing else.
func (i Image) Digest() (string, error) {
	img, err := i.Build()
	if err != nil {
		return "", err
	}
	hash, err := img.ConfigName()
	if err != nil {
		return "", fmt.Errorf("make the image %s: %w", i.Ref, err)
	}
	return hash.String(), nil
}

// Archive writes the image to file as an archive that a runtime can import.
func (i Image) Archive(file string) error {
	img, err := i.Build()
	if err != nil {
		return err
	}
	tag, err := name.NewTag(i.Ref, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("image name %q: give all of it, docker.io/FOLDER/NAME:TAG: %w", i.Ref, err)
	}
	temp := file + ".partial"
	if err := tarball.WriteToFile(temp, tag, img); err != nil {
		return fmt.Errorf("write the image %s: %w", i.Ref, err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("write the image %s: %w", i.Ref, err)
	}
	return nil
}

// layer is a tar archive with the program, the folders above it and /tmp.
func layer(program, path string) ([]byte, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	dir := func(path string, mode int64) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: path + "/", Mode: mode, ModTime: epoch, Format: tar.FormatPAX})
	}
	var parents []string
	for d := filepath.Dir(path); d != "/" && d != "."; d = filepath.Dir(d) {
		parents = append([]string{d[1:]}, parents...)
	}
	for _, d := range parents {
		if err := dir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := dir("tmp", 0o1777); err != nil {
		return nil, err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: path[1:], Mode: 0o755, Size: int64(len(data)), ModTime: epoch, Format: tar.FormatPAX}
	if err := w.WriteHeader(header); err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
