package snapshot_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/topolet/topolet/topology/snapshot"
	"github.com/topolet/topolet/topology/topologytest"
)

// tarball packs entries as they are; Size counts only where there is no content.
func tarball(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	archive := tar.NewWriter(zipped)
	for _, h := range headers {
		if err := archive.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(archive, zeros{}, h.Size); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(archive.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestAnArchiveThatIsNotMeantWellIsRefusedWithARemedy(t *testing.T) {
	many := make([]tar.Header, 1<<18+1)
	for i := range many {
		many[i] = tar.Header{Typeflag: tar.TypeDir, Name: strconv.Itoa(i)}
	}
	deep := make([]tar.Header, 300)
	for i := range deep {
		deep[i] = tar.Header{Typeflag: tar.TypeDir, Name: strconv.Itoa(i) + strings.Repeat("/d", 2000)}
	}
	for name, tc := range map[string]struct {
		archive []byte
		want    string
	}{
		"text":                  {[]byte("hello"), "no gzipped tar"},
		"half of an archive":    {tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "sys/f", Size: 9})[:30], "damaged"},
		"a file above it":       {tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "sys/../../etc/passwd"}), "sys/../../etc/passwd"},
		"an absolute file":      {tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "/etc/passwd"}), "outside"},
		"a link out of it":      {tarball(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "sys/l", Linkname: "../../etc"}), `link to "../../etc"`},
		"an absolute link":      {tarball(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "sys/l", Linkname: "/etc"}), `link to "/etc"`},
		"a hard link":           {tarball(t, tar.Header{Typeflag: tar.TypeLink, Name: "sys/l", Linkname: "sys/f"}), "neither"},
		"a device":              {tarball(t, tar.Header{Typeflag: tar.TypeChar, Name: "dev/zero"}), "neither"},
		"one huge file":         {tarball(t, tar.Header{Typeflag: tar.TypeReg, Name: "sys/f", Size: 65 << 20}), "beyond 64 MiB"},
		"too many entries":      {tarball(t, many...), "more than 262144 entries"},
		"names of many folders": {tarball(t, deep...), "more than 262144 folders"},
		"a name without end":    {tarball(t, tar.Header{Typeflag: tar.TypeDir, Name: strings.Repeat("d", 5000)}), "longer than 4096"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := snapshot.Read(bytes.NewReader(tc.archive))
			if _, known := errors.AsType[*snapshot.ArchiveError](err); !known {
				t.Fatalf("got %v", err)
			}
			for _, part := range []string{tc.want, "topolet snapshot"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
			if len(err.Error()) > 500 || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is not one short line: %v", err)
			}
		})
	}
}

func TestAnArchiveMadeByHandIsRead(t *testing.T) {
	tree, err := snapshot.Read(bytes.NewReader(tarball(t,
		tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "from elsewhere"}},
		tar.Header{Typeflag: tar.TypeDir, Name: "./"},
		tar.Header{Typeflag: tar.TypeReg, Name: "./sys/devices/f", Size: 3},
		tar.Header{Typeflag: tar.TypeSymlink, Name: "sys/bus/l", Linkname: "../devices/f"},
	)))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(tree.Files(), " "); got != "sys/bus/l sys/devices/f" {
		t.Errorf("got %s", got)
	}
}

func TestARootIsAFolderOrAnArchive(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "m.tar.gz")
	if err := os.WriteFile(file, pack(t, topologytest.FS(topologytest.Spec{Sockets: 2})), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := snapshot.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if n := len(discover(t, root).CPUs); n != 2 {
		t.Errorf("%d CPUs", n)
	}
	if _, err := snapshot.Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := snapshot.Open(os.DevNull); err == nil || !strings.Contains(err.Error(), "neither") {
		t.Errorf("got %v", err)
	}
}
