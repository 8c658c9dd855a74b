package fpgaprogram_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/draplugin/fpgaprogram/fpgatest"
)

func TestAProgramIsFoundByInterfaceAndFunction(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, folder)
	fpgatest.Program(t, dir, interfaceID, wanted, "first")
	f, err := fpgaprogram.Folder{Root: root, Path: folder}.Find(interfaceID, wanted)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := f.Content()
	if err != nil || string(data) != interfaceID+" "+wanted+" first" || f.Path != folder+"/"+interfaceID+"/"+wanted+".gbs" {
		t.Errorf("%s has %q, %v", f.Path, data, err)
	}
	// A GBS file under the other name is as good: its content tells.
	if err := os.Rename(filepath.Join(dir, interfaceID, wanted+".gbs"), filepath.Join(dir, interfaceID, wanted+".aocx")); err != nil {
		t.Fatal(err)
	}
	g, err := fpgaprogram.Folder{Root: root, Path: folder}.Find(interfaceID, wanted)
	if err != nil {
		t.Fatal(err)
	}
	g.Close() //nolint:errcheck // only read
}

func TestALinkWithinTheFolderIsFollowed(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, folder)
	program := fpgatest.Program(t, dir, interfaceID, wanted, "first")
	if err := os.Rename(program, filepath.Join(dir, "nlb3.gbs")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../nlb3.gbs", program); err != nil {
		t.Fatal(err)
	}
	f, err := fpgaprogram.Folder{Root: root, Path: folder}.Find(interfaceID, wanted)
	if err != nil {
		t.Fatal(err)
	}
	f.Close() //nolint:errcheck // only read
}

func TestWhatIsNotTheProgramIsRefused(t *testing.T) {
	const other = "ce48969398f05f33946d560708be108a"
	for name, test := range map[string]struct {
		put  func(t *testing.T, root, program string) error
		said string
	}{
		"a link out of the folder": {func(t *testing.T, root, program string) error {
			outside := fpgatest.Program(t, filepath.Join(root, "outside"), interfaceID, wanted, "first")
			relative, err := filepath.Rel(filepath.Dir(program), outside)
			if err != nil {
				return err
			}
			return os.Symlink(relative, program)
		}, "opening the program: path escapes"},
		"an absolute link": {func(t *testing.T, root, program string) error {
			return os.Symlink(fpgatest.Program(t, filepath.Join(root, "outside"), interfaceID, wanted, "first"), program)
		}, "opening the program: path escapes"},
		"a folder": {func(_ *testing.T, _, program string) error { return os.Mkdir(program, 0o750) }, "it is no file"},
		"a pipe":   {func(_ *testing.T, _, program string) error { return syscall.Mkfifo(program, 0o600) }, "it is no file"},
		"an empty file": {func(_ *testing.T, _, program string) error { return os.WriteFile(program, nil, 0o600) },
			"it is no program for an FPGA"},
		"a text": {func(_ *testing.T, _, program string) error {
			return os.WriteFile(program, bytes.Repeat([]byte("text"), 99), 0o600)
		}, "neither a GBS nor an AOCX file"},
		"a program for another interface": {func(_ *testing.T, _, program string) error {
			return os.WriteFile(program, fpgatest.GBS(other, wanted, ""), 0o600)
		}, "it is for cards with interface " + other},
		"a program of another function": {func(_ *testing.T, _, program string) error {
			return os.WriteFile(program, fpgatest.GBS(interfaceID, other, ""), 0o600)
		}, "it brings function " + other},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			program := filepath.Join(root, folder, interfaceID, wanted+".gbs")
			if err := os.MkdirAll(filepath.Dir(program), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := test.put(t, root, program); err != nil {
				t.Fatal(err)
			}
			_, err := fpgaprogram.Folder{Root: root, Path: folder}.Find(interfaceID, wanted)
			if err == nil || !strings.Contains(err.Error(), test.said) || !strings.HasPrefix(err.Error(), folder+"/"+interfaceID+"/"+wanted+".gbs: ") {
				t.Errorf("got %v, want %q", err, test.said)
			}
		})
	}
}

func TestOnlyIDsAreLookedFor(t *testing.T) {
	root := t.TempDir()
	fpgatest.Program(t, filepath.Join(root, folder), interfaceID, wanted, "first")
	for _, ids := range [][2]string{
		{"..", wanted}, {interfaceID, "../../../../etc/passwd"}, {"", wanted}, {interfaceID, ""},
		{strings.ToUpper(interfaceID), wanted}, {interfaceID, strings.Repeat("/", 32)},
	} {
		if _, err := (fpgaprogram.Folder{Root: root, Path: folder}).Find(ids[0], ids[1]); err == nil || !strings.Contains(err.Error(), "is not the ID") {
			t.Errorf("%q: %v", ids, err)
		}
	}
}
