package picture

import "os"

// Palette colours text for a terminal. The zero value leaves it plain.
type Palette struct{ colour bool }

// PaletteFor has colours if the file is a terminal that shows them and nobody
// asked for none with NO_COLOR.
func PaletteFor(f *os.File) Palette {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return Palette{}
	}
	info, err := f.Stat()
	return Palette{colour: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// Coloured is a palette with colours.
func Coloured() Palette { return Palette{colour: true} }

// Strong is for titles.
func (p Palette) Strong(s string) string { return p.paint("1", s) }

// Faint is for what matters less.
func (p Palette) Faint(s string) string { return p.paint("2", s) }

// Exclusive is for the CPUs of a container with a claim.
func (p Palette) Exclusive(s string) string { return p.paint("32", s) }

// Shared is for the CPUs of a container without one.
func (p Palette) Shared(s string) string { return p.paint("34", s) }

// Good is for what is as it should be.
func (p Palette) Good(s string) string { return p.paint("32", s) }

// Bad is for what is not.
func (p Palette) Bad(s string) string { return p.paint("1;31", s) }

func (p Palette) paint(code, s string) string {
	if !p.colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}
