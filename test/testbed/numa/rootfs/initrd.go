package rootfs

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Initrd writes the entries as the archive that the kernel unpacks into its
// first root file system: cpio in the "newc" format, not compressed, because
// the machine would spend longer on unpacking than this host on reading.
func Initrd(file string, entries []Entry) error {
	var out bytes.Buffer
	for i, e := range append(parents(entries), entries...) {
		data, err := e.data()
		if err != nil {
			return fmt.Errorf("write the initrd: %w", err)
		}
		header(&out, i+1, strings.TrimPrefix(e.Path, "/"), e.unixMode(), len(data))
		out.Write(data)
		pad(&out)
	}
	header(&out, 0, "TRAILER!!!", 0, 0)
	temp := file + ".partial"
	if err := os.WriteFile(temp, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the initrd: %w", err)
	}
	if err := os.Rename(temp, file); err != nil {
		return fmt.Errorf("write the initrd: %w", err)
	}
	return nil
}

func header(w *bytes.Buffer, inode int, name string, mode uint32, size int) {
	const links, none = 1, 0
	fmt.Fprintf(w, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		inode, mode, none, none, links, none, size, none, none, none, none, len(name)+1, none, name)
	pad(w)
}

// pad fills up to the next multiple of four bytes.
func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}
