package images

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func program(t *testing.T, content string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(p, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

func archive(t *testing.T, i Image) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "i.tar")
	if err := i.Archive(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestSameProgramSameImage(t *testing.T) {
	a := Image{Ref: "docker.io/x/a:1", Program: program(t, "one"), Path: "/bin/a"}
	b := a
	b.Program = program(t, "one")
	// Neither the file's name nor its times may show.
	if err := os.Chtimes(b.Program, time.Unix(1, 0), time.Unix(2, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(archive(t, a), archive(t, b)) {
		t.Error("two archives of one content differ")
	}
	digest := func(i Image) string {
		d, err := i.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if digest(a) != digest(b) {
		t.Error("two digests of one content differ")
	}
	c := a
	c.Program = program(t, "two")
	d := a
	d.User = "1000"
	if digest(a) == digest(c) || digest(a) == digest(d) {
		t.Error("a change does not change the digest")
	}
}

func TestArchiveContent(t *testing.T) {
	i := Image{Ref: "docker.io/x/a:1", Program: program(t, "hello"), Path: "/usr/bin/a"}
	file := filepath.Join(t.TempDir(), "i.tar")
	if err := i.Archive(file); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(i.Ref)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(file, &tag)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if len(config.Config.Entrypoint) != 1 || config.Config.Entrypoint[0] != "/usr/bin/a" || config.OS != "linux" {
		t.Errorf("configuration %+v", config)
	}
	var content bytes.Buffer
	r := mutate.Extract(img)
	defer r.Close()
	if _, err := content.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"usr/bin/a", "hello", "tmp"} {
		if !strings.Contains(content.String(), want) {
			t.Errorf("%q is not in the image", want)
		}
	}
}

func TestErrorsNameTheImage(t *testing.T) {
	i := Image{Ref: "docker.io/x/a:1", Program: "/nonexistent", Path: "/a"}
	if _, err := i.Digest(); err == nil || !strings.Contains(err.Error(), i.Ref) {
		t.Errorf("error %v", err)
	}
	i = Image{Ref: "a", Program: program(t, ""), Path: "/a"}
	if err := i.Archive(filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "docker.io/FOLDER/NAME:TAG") {
		t.Errorf("short name: error %v", err)
	}
}
