// Package fpgatest makes cards of FPGAs for tests of who programs them: the files by which
// Linux shows a card, and an engine that answers ioctls as the drivers do.
//
//	card := fpgatest.New(t, host, "dfl", "0000:5e:00.0", interfaceID, ports...)
//	fpgatest.Program(t, folder, interfaceID, afuID, "data")
//	programmer := fpgaprogram.Programmer{Files: root, Root: host.Dir, Kernel: card}
package fpgatest
