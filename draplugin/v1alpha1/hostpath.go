package v1alpha1

import (
	"path"
	"regexp"
)

// hostPath is what paths of the host are made of that are mounted and handed to programs.
var hostPath = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)

// remedyHostPath is followed by an example.
const remedyHostPath = "write an absolute path of the host, in letters, digits, dashes, dots and underscores, such as "

func isHostPath(p string) bool { return hostPath.MatchString(p) && path.Clean(p) == p }

// checkNetwork refuses what cannot set up a network. Field names one of the family's fields.
func (f DeviceFamily) checkNetwork(kind string, field func(string) string) error {
	for _, given := range []struct{ name, path, example string }{
		{"networkHook", f.NetworkHook, "\"/usr/bin/habana-container-hook\""},
		{"networkConfig", f.NetworkConfig, "\"/etc/habanalabs/gaudinet.json\""},
	} {
		switch {
		case given.path == "":
		case f.Family != "gaudi":
			return &FieldError{kind, field(given.name), given.path, "leave it out: only gaudi has network ports that are set up"}
		case !isHostPath(given.path):
			return &FieldError{kind, field(given.name), given.path, remedyHostPath + given.example}
		case f.NetworkHook == "":
			return &FieldError{kind, field(given.name), given.path, "name the program that reads it as well (networkHook), or leave it out"}
		}
	}
	return nil
}
