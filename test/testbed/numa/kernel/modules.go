package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// unpackModules writes the wanted modules of an unpacked package, and those
// that they depend on, into dir. Their names sort in the order of loading.
func unpackModules(ctx context.Context, tree, dir string) error {
	files := map[string]string{}
	err := filepath.WalkDir(tree, func(path string, _ fs.DirEntry, err error) error {
		name, _, isModule := strings.Cut(filepath.Base(path), ".ko")
		if isModule {
			files[canonical(name)] = path
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("look for the kernel's modules: %w", err)
	}
	done := map[string]bool{}
	var unpack func(name string) error
	unpack = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("the kernel's package has no module %s", name)
		}
		data, err := decompressed(ctx, file)
		if err != nil {
			return err
		}
		needs, err := depends(data)
		if err != nil {
			return fmt.Errorf("read the module %s: %w", name, err)
		}
		for _, need := range needs {
			if err := unpack(need); err != nil {
				return err
			}
		}
		written, _ := filepath.Glob(filepath.Join(dir, "*.ko"))
		return os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d-%s.ko", len(written), name)), data, 0o644)
	}
	for _, name := range wanted {
		if err := unpack(name); err != nil {
			return fmt.Errorf("unpack the kernel's modules: %w", err)
		}
	}
	return nil
}

// canonical is a module's name as the kernel writes it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

func decompressed(ctx context.Context, file string) ([]byte, error) {
	var program string
	switch filepath.Ext(file) {
	case ".ko":
		return os.ReadFile(file)
	case ".xz":
		program = "xz"
	case ".zst":
		program = "zstd"
	default:
		return nil, fmt.Errorf("%s: modules are expected with .ko, .ko.xz or .ko.zst", file)
	}
	out, err := exec.CommandContext(ctx, program, "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("%s -dc %s: %w", program, file, err)
	}
	return out, nil
}

// depends reads which modules a module needs loaded before it.
func depends(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("it has no .modinfo section")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var names []string
	for field := range bytes.SplitSeq(info, []byte{0}) {
		list, ok := strings.CutPrefix(string(field), "depends=")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				names = append(names, canonical(name))
			}
		}
	}
	return names, nil
}
