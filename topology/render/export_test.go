package render

// For the tests of what is drawn.
var (
	TextWidth    = textWidth
	CountDevices = countDevices
)
