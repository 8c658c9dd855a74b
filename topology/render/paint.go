package render

import "regexp"

// paint turns a line of the tree into what is printed.
type paint func(line) string

func plain(l line) string { return l.text }

// The colours of a terminal are few, and its user has chosen what they look like.
const (
	green   = "\x1b[32m"
	cyan    = "\x1b[36m"
	magenta = "\x1b[35m"
	reset   = "\x1b[0m"
)

var (
	nodeWords = regexp.MustCompile(`NUMA nodes? [0-9,-]*[0-9]`)
	coreWords = regexp.MustCompile(`[0-9]+ (performance |efficiency )?cores?( of [0-9]+ threads)?`)
)

// coloured has what pods ask for in colour: NUMA nodes green, cores cyan, devices
// magenta, as far as their names go. The rest stays as it is.
func coloured(l line) string {
	if l.device {
		return magenta + l.text + reset
	}
	text := nodeWords.ReplaceAllString(l.text, green+"$0"+reset)
	return coreWords.ReplaceAllString(text, cyan+"$0"+reset)
}
