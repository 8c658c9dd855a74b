package testbed

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"

	"github.com/topolet/topolet/test/testbed/internal/layout"
)

// DefaultState is the state folder when none is named.
const DefaultState = layout.DefaultState

// The defaults of what a cluster is created with.
const (
	DefaultNodeName = "topolet-node"
	// DefaultPodCIDR is used where the host does not; otherwise the next free
	// network of the same size.
	DefaultPodCIDR = "10.214.0.0/24"
)

// Options say which testbed and how it is to be.
type Options struct {
	// State is the absolute path of the folder that holds everything of this
	// testbed; it must not exist, or be a testbed's. Empty means DefaultState.
	State string

	// The following describe the cluster. Up records them; a field with its
	// zero value takes what was recorded before, or the default.

	// NodeName is the name of the node.
	NodeName string
	// PodCIDR is the IPv4 network of the pods, from /8 to /30. Its first
	// address is the node's.
	PodCIDR string
	// FeatureGates are given to the API server, the controller manager, the
	// scheduler and the kubelet. Nil means what was recorded; an empty map
	// means none.
	FeatureGates map[string]bool
	// RuntimeConfig is the API server's flag of this name, which switches API
	// versions that are off by default. Nil means what was recorded.
	RuntimeConfig *string
	// APIServerPort is the API server's TCP port on loopback. Zero means what
	// was recorded, or 6443, or a free one if that is taken.
	APIServerPort int

	// WithoutTopolet makes Up leave the topolet image alone, for work on a
	// tree whose topolet command does not compile. It is not recorded.
	WithoutTopolet bool
	// TopoletTags are the build tags of topolet's image. They are not recorded: an Up
	// without them makes the ordinary image again.
	TopoletTags []string

	// Source is the folder of the testbed's Go module. Empty means that it is
	// looked for from the working directory upwards.
	Source string
	// Cache is the folder of built programs. Empty means a folder in the
	// user's cache folder.
	Cache string
	// Progress receives one line per step. Nil means none.
	Progress io.Writer
}

var (
	nodeName    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	featureGate = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)
)

// Validate reports everything that is wrong with the options, naming the
// option, the value and what would be right. It touches nothing.
func (o Options) Validate() error {
	var errs []error
	if o.State != "" {
		if _, err := layout.New(o.State); err != nil {
			errs = append(errs, err)
		}
	}
	if o.NodeName != "" && (len(o.NodeName) > 63 || !nodeName.MatchString(o.NodeName)) {
		errs = append(errs, fmt.Errorf("node name %q: use up to 63 lower case letters, digits, '-' and '.', for example %s", o.NodeName, DefaultNodeName))
	}
	if o.PodCIDR != "" {
		if _, err := parsePodCIDR(o.PodCIDR); err != nil {
			errs = append(errs, err)
		}
	}
	for name := range o.FeatureGates {
		if !featureGate.MatchString(name) {
			errs = append(errs, fmt.Errorf("feature gate %q: the names are like DRAListTypeAttributes", name))
		}
	}
	if o.APIServerPort < 0 || o.APIServerPort > 65535 {
		errs = append(errs, fmt.Errorf("API server port %d: use 1 to 65535, or 0 to have one chosen", o.APIServerPort))
	}
	return errors.Join(errs...)
}

func parsePodCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() > 30 || p.Bits() < 8 {
		return netip.Prefix{}, fmt.Errorf("pod network %q: give an IPv4 network from /8 to /30, for example %s", s, DefaultPodCIDR)
	}
	if a := p.Addr(); a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return netip.Prefix{}, fmt.Errorf("pod network %q: the kubelet takes no loopback, link-local or multicast address; use a private one, for example %s", s, DefaultPodCIDR)
	}
	return p.Masked(), nil
}

// ParseFeatureGates reads the form Name=true,Other=false. An empty string is
// an empty map.
func ParseFeatureGates(s string) (map[string]bool, error) {
	gates := map[string]bool{}
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		name, value, ok := strings.Cut(item, "=")
		if !ok || (value != "true" && value != "false") {
			return nil, fmt.Errorf("feature gate %q: write Name=true or Name=false", item)
		}
		gates[name] = value == "true"
	}
	return gates, nil
}
