package render

import (
	"strings"
	"unicode"
)

// Sizes of text in the picture, in pixels.
const (
	fontSize   = 12
	lineHeight = 16
)

// textWidth returns a width that the text does not exceed in any of the fonts
// that a viewer is likely to choose: DejaVu Sans and Verdana are the widest.
func textWidth(text string) int {
	width := 0
	for _, r := range text {
		width += runeWidth(r)
	}
	return pixels(width)
}

// runeWidth is in thousandths of the font's size.
func runeWidth(r rune) int {
	switch {
	case strings.ContainsRune("ijl.,;|!' ", r):
		return 400
	case strings.ContainsRune("frtI:()[]/-", r):
		return 470
	case strings.ContainsRune("ckszvxy", r):
		return 610
	case strings.ContainsRune("mwMW@%", r) || r > unicode.MaxLatin1:
		return 1020
	case unicode.IsUpper(r):
		return 800
	case unicode.IsDigit(r):
		return 645
	}
	return 660
}

func pixels(thousandths int) int { return (thousandths*fontSize + 999) / 1000 }

// fit returns how many bytes of the text fit, and how many if it should end after
// a space or a comma; the latter is 0 if there is none.
func fit(text string, width int) (most, good int) {
	w := 0
	for i, r := range text {
		if w += runeWidth(r); pixels(w) > width && i > 0 {
			return i, good
		}
		if r == ' ' || r == ',' {
			good = i + 1
		}
	}
	return len(text), len(text)
}

// cut shortens a text to a width.
func cut(text string, width int) string {
	if most, _ := fit(text, width); most == len(text) {
		return text
	}
	most, _ := fit(text, width-textWidth("…"))
	return strings.TrimRight(text[:most], " ,") + "…"
}

// wrap breaks a text into lines of a width, after spaces and commas if it can.
func wrap(text string, width int) []string {
	var lines []string
	for text = strings.TrimSpace(text); text != ""; text = strings.TrimSpace(text) {
		most, good := fit(text, width)
		if good > 0 {
			most = good
		}
		lines = append(lines, strings.TrimSpace(text[:most]))
		text = text[most:]
	}
	return lines
}
