package fpgatest

import (
	"encoding/binary"
	"fmt"
)

// GBS is the content of a file, with data from which the card learns what it is.
func GBS(interfaceID, afuID, text string) []byte {
	metadata := fmt.Sprintf(`{"version": 1, "afu-image": {"interface-uuid": %q, "accelerator-clusters": [{"accelerator-type-uuid": %q}]}}`, interfaceID, afuID)
	file := binary.LittleEndian.AppendUint64(nil, 0x414750466e6f6558)
	file = binary.LittleEndian.AppendUint64(file, 0x31303076534247b7)
	file = binary.LittleEndian.AppendUint32(file, uint32(len(metadata))) //nolint:gosec // short
	return fmt.Appendf(append(file, metadata...), "%s %s %s", interfaceID, afuID, text)
}
