package v1alpha1

import (
	"fmt"
	"maps"
	"math/bits"
	"regexp"
	"slices"
	"strings"

	"github.com/topolet/topolet/topology"
)

// Profile is how functions of a family are to be set up. What it does not name stays as
// it is.
type Profile struct {
	// Match selects functions; without it the profile is for all of the family that have
	// such settings.
	Match ProfileMatch `json:"match,omitzero"`

	// VirtualFunctions is how many virtual functions a physical one shall have (gpu, nic,
	// nvme, qat, dlb). QAT has all that there can be or none.
	VirtualFunctions *int `json:"virtualFunctions,omitempty"`
	// ProbeVirtualFunctions says whether virtual functions get a driver when they appear.
	// Without one they wait for claims that have them handed over as a whole. It is of no
	// consequence for those that there are.
	ProbeVirtualFunctions *bool `json:"probeVirtualFunctions,omitempty"`

	// Services are what an accelerator offers (qat): sym, asym, dc, dcc, decomp, as many
	// together as the device can. VirtualFunctions must be given too, because those that
	// there are vanish when services change.
	Services []string `json:"services,omitempty"`
	// AutoReset says whether the driver resets an accelerator (qat) that has failed.
	AutoReset *bool `json:"autoReset,omitempty"`
	// PMIdle says whether an accelerator (qat) saves power while it has nothing to do.
	// VirtualFunctions must be given too, because those that there are vanish when it changes.
	PMIdle *bool `json:"pmIdle,omitempty"`

	// Groups divide an accelerator (dsa, iaa). They are all that it then has.
	Groups []WorkQueueGroup `json:"groups,omitempty"`

	// Quota is what each virtual function of a graphics card (gpu, driver xe) gets of its time
	// and memory. VirtualFunctions must be given too.
	Quota *FunctionQuota `json:"quota,omitempty"`

	// Resources are what each virtual function of a load balancer (dlb) gets, by the names
	// of the driver's files: {num_sched_domains: 2, num_ldb_queues: 4}. VirtualFunctions
	// must be given too, and ProbeVirtualFunctions is true if it is not.
	Resources map[string]int `json:"resources,omitempty"`
}

// FunctionQuota is what a virtual function gets of its card. What it does not name stays as
// it is.
type FunctionQuota struct {
	// ExecQuantumMS is for how long its work runs before that of others has its turn; 0 is
	// without end.
	ExecQuantumMS *int64 `json:"execQuantumMs,omitempty"`
	// PreemptTimeoutUS is how long its work may take to make way before it is reset; 0 is
	// for ever.
	PreemptTimeoutUS *int64 `json:"preemptTimeoutUs,omitempty"`
	// SchedPriority is low, normal or high.
	SchedPriority string `json:"schedPriority,omitempty"`
	// VRAMBytes is how much of the card's memory it has.
	VRAMBytes *int64 `json:"vramBytes,omitempty"`
}

// ProfileMatch selects functions. Of each list that is not empty one entry has to fit.
type ProfileMatch struct {
	// BusIDs are the addresses of PCI functions, such as "0000:3a:00.0".
	BusIDs []string `json:"busIDs,omitempty"`
	// DeviceIDs are the functions' PCI device IDs, such as "0x4940".
	DeviceIDs []string `json:"deviceIDs,omitempty"`
}

// WorkQueueGroup is a number of engines that work off some queues.
type WorkQueueGroup struct {
	// Engines is how many of the accelerator's engines the group has.
	Engines int `json:"engines"`
	// ReadBuffers is how many of the accelerator's read buffers the group may use (dsa): at
	// least four for each engine. The default is the kernel's.
	ReadBuffers int `json:"readBuffers,omitempty"`
	// WorkQueues are its queues.
	WorkQueues []WorkQueue `json:"workQueues"`
}

// WorkQueue is a queue of an accelerator.
type WorkQueue struct {
	// Name is what programs find the queue by. DPDK takes those that begin with dpdk_.
	Name string `json:"name"`
	// Mode is dedicated, for one program at a time, or shared. The default is dedicated.
	Mode string `json:"mode,omitempty"`
	// Driver is user for programs in user space, or dmaengine or crypto for the kernel's own
	// purposes. The default is user.
	Driver string `json:"driver,omitempty"`
	// Size is how many descriptors the queue has room for; the accelerator divides what it
	// has among all queues.
	Size int `json:"size"`
	// Priority is from 1 to 15, within the group. The default is 10.
	Priority int `json:"priority,omitempty"`
	// Threshold is how much of a shared queue programs without privileges can fill. The
	// default is all of it.
	Threshold int `json:"threshold,omitempty"`
	// BlockOnFault has the accelerator wait for pages that are not in memory.
	BlockOnFault bool `json:"blockOnFault,omitempty"`
	// MaxTransferSize (bytes) and MaxBatchSize (descriptors; dsa) bound one piece of work.
	// Both are powers of two. The defaults are the kernel's.
	MaxTransferSize int64 `json:"maxTransferSize,omitempty"`
	MaxBatchSize    int64 `json:"maxBatchSize,omitempty"`
}

// Modes and drivers of work queues, by the kernel's names.
const (
	DedicatedQueue  = "dedicated"
	SharedQueue     = "shared"
	UserDriver      = "user"
	DMAEngineDriver = "dmaengine"
	CryptoDriver    = "crypto"
)

// defaultPriority is in the middle.
const defaultPriority = 10

// services are those that QAT devices know, of which dcc is the only one that stands alone.
var services = []string{"sym", "asym", "dc", "dcc", "decomp"}

// priorities are those of virtual functions of graphics cards, by the driver's names.
var priorities = []string{"low", "normal", "high"}

// LoadBalancerResources are the names that Profile.Resources can have, in the order in
// which they are written.
var LoadBalancerResources = []string{
	"num_sched_domains", "num_ldb_queues", "num_ldb_ports",
	"num_cos0_ldb_ports", "num_cos1_ldb_ports", "num_cos2_ldb_ports", "num_cos3_ldb_ports",
	"num_dir_ports", "num_ldb_credits", "num_dir_credits",
	"num_hist_list_entries", "num_atomic_inflights", "num_sn0_slots", "num_sn1_slots",
}

// The families with such settings.
var (
	virtualizable = []string{"gpu", "nic", "nvme", "qat", "dlb"}
	divisible     = []string{"dsa", "iaa"}
)

var (
	deviceID  = regexp.MustCompile(`^0x[0-9a-f]{4}$`)
	queueName = regexp.MustCompile(`^[A-Za-z0-9][-A-Za-z0-9_.]{0,62}$`)
)

// checkProfiles refuses what no function of the family can be, and fills in defaults.
func checkProfiles(family string, profiles []Profile, kind, field string) error {
	for i := range profiles {
		if err := profiles[i].check(family, kind, fmt.Sprintf("%s.profiles[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (p *Profile) check(family, kind, field string) error {
	bad := func(name, value, remedy string) error {
		return &FieldError{kind, field + name, value, remedy}
	}
	named := false
	for _, f := range []struct {
		name     string
		given    bool
		families []string
	}{
		{"virtualFunctions", p.VirtualFunctions != nil, virtualizable},
		{"probeVirtualFunctions", p.ProbeVirtualFunctions != nil, virtualizable},
		{"services", len(p.Services) > 0, []string{"qat"}},
		{"autoReset", p.AutoReset != nil, []string{"qat"}},
		{"pmIdle", p.PMIdle != nil, []string{"qat"}},
		{"groups", len(p.Groups) > 0, divisible},
		{"quota", p.Quota != nil, []string{"gpu"}},
		{"resources", len(p.Resources) > 0, []string{"dlb"}},
	} {
		if f.given && !slices.Contains(f.families, family) {
			return bad("."+f.name, family, "leave it out: only "+strings.Join(f.families, ", ")+" can have it")
		}
		named = named || f.given
	}
	if !named {
		return bad("", family, "name something that functions of this family shall have, or leave the profile out")
	}
	for i, id := range p.Match.BusIDs {
		if a, err := topology.ParsePCIAddress(id); err != nil || a.String() != id {
			return bad(fmt.Sprintf(".match.busIDs[%d]", i), id, "write an address as lspci -D prints it, such as \"0000:3a:00.0\"")
		}
	}
	for i, id := range p.Match.DeviceIDs {
		if !deviceID.MatchString(id) {
			return bad(fmt.Sprintf(".match.deviceIDs[%d]", i), id, "write four hexadecimal digits in lower case, such as \"0x4940\"")
		}
	}
	if n := p.VirtualFunctions; n != nil && (*n < 0 || *n > 0xffff) {
		return bad(".virtualFunctions", fmt.Sprint(*n), "use a number from 0 to what lspci shows as total VFs")
	}
	for i, s := range p.Services {
		switch field := fmt.Sprintf(".services[%d]", i); {
		case !slices.Contains(services, s):
			return bad(field, s, "use some of "+strings.Join(services, ", "))
		case slices.Contains(p.Services[:i], s):
			return bad(field, s, "name each service once")
		case s == "dcc" && len(p.Services) > 1:
			return bad(field, s, "use dcc alone")
		}
	}
	if (len(p.Services) > 0 || p.PMIdle != nil) && p.VirtualFunctions == nil {
		return bad(".virtualFunctions", "", "say how many there shall be: those that there are vanish when services or pmIdle change")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Resources)) {
		n := p.Resources[name]
		if !slices.Contains(LoadBalancerResources, name) {
			return bad(".resources", name, "use some of "+strings.Join(LoadBalancerResources, ", "))
		}
		if n < 0 {
			return bad(".resources."+name, fmt.Sprint(n), "use 0 or more")
		}
	}
	if len(p.Resources) > 0 && (p.VirtualFunctions == nil || *p.VirtualFunctions == 0) {
		return bad(".virtualFunctions", "", "say how many there shall be to get the resources")
	}
	if p.Quota != nil {
		if err := p.Quota.check(kind, field+".quota"); err != nil {
			return err
		}
		if p.VirtualFunctions == nil || *p.VirtualFunctions == 0 {
			return bad(".virtualFunctions", "", "say how many there shall be to get the quota")
		}
	}
	for i := range p.Groups {
		if err := p.Groups[i].check(family, kind, fmt.Sprintf("%s.groups[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (q *FunctionQuota) check(kind, field string) error {
	if *q == (FunctionQuota{}) {
		return &FieldError{kind, field, "{}", "name something that virtual functions shall get, or leave it out"}
	}
	for _, f := range []struct {
		name  string
		value *int64
	}{{"execQuantumMs", q.ExecQuantumMS}, {"preemptTimeoutUs", q.PreemptTimeoutUS}, {"vramBytes", q.VRAMBytes}} {
		if f.value != nil && *f.value < 0 {
			return &FieldError{kind, field + "." + f.name, fmt.Sprint(*f.value), "use 0 or more"}
		}
	}
	if q.SchedPriority != "" && !slices.Contains(priorities, q.SchedPriority) {
		return &FieldError{kind, field + ".schedPriority", q.SchedPriority, "use one of " + strings.Join(priorities, ", ")}
	}
	return nil
}

func (g *WorkQueueGroup) check(family, kind, field string) error {
	bad := func(name string, value int, remedy string) error {
		return &FieldError{kind, field + name, fmt.Sprint(value), remedy}
	}
	switch {
	case g.Engines < 1:
		return bad(".engines", g.Engines, "use 1 or more")
	case len(g.WorkQueues) == 0:
		return bad(".workQueues", 0, "give the group at least one queue")
	case g.ReadBuffers != 0 && family != "dsa":
		return bad(".readBuffers", g.ReadBuffers, "leave it out: only dsa has read buffers")
	case g.ReadBuffers != 0 && g.ReadBuffers < 4*g.Engines:
		return bad(".readBuffers", g.ReadBuffers, fmt.Sprintf("use at least four for each engine: %d", 4*g.Engines))
	}
	for i := range g.WorkQueues {
		if err := g.WorkQueues[i].check(family, kind, fmt.Sprintf("%s.workQueues[%d]", field, i)); err != nil {
			return err
		}
	}
	return nil
}

func (q *WorkQueue) check(family, kind, field string) error {
	for _, err := range []error{
		choose(&q.Mode, kind, field+".mode", DedicatedQueue, SharedQueue),
		choose(&q.Driver, kind, field+".driver", UserDriver, DMAEngineDriver, CryptoDriver),
	} {
		if err != nil {
			return err
		}
	}
	bad := func(name string, value any, remedy string) error {
		return &FieldError{kind, field + name, fmt.Sprint(value), remedy}
	}
	if q.Priority == 0 {
		q.Priority = defaultPriority
	}
	if q.Threshold == 0 && q.Mode == SharedQueue {
		q.Threshold = q.Size
	}
	powerOfTwo := func(n int64) bool { return n == 0 || n > 0 && bits.OnesCount64(uint64(n)) == 1 }
	switch {
	case !queueName.MatchString(q.Name):
		return bad(".name", q.Name, "use 1 to 63 letters, digits, dashes, dots and underscores")
	case q.Size < 1:
		return bad(".size", q.Size, "use 1 or more")
	case q.Priority < 1 || q.Priority > 15:
		return bad(".priority", q.Priority, "use a number from 1 to 15")
	case q.Threshold != 0 && q.Mode != SharedQueue:
		return bad(".threshold", q.Threshold, "leave it out: only shared queues have one")
	case q.Threshold < 0 || q.Threshold > q.Size:
		return bad(".threshold", q.Threshold, "use a number from 1 to the size")
	case !powerOfTwo(q.MaxTransferSize):
		return bad(".maxTransferSize", q.MaxTransferSize, "use a power of two")
	case !powerOfTwo(q.MaxBatchSize):
		return bad(".maxBatchSize", q.MaxBatchSize, "use a power of two")
	case q.MaxBatchSize != 0 && family != "dsa":
		return bad(".maxBatchSize", q.MaxBatchSize, "leave it out: only dsa has batches")
	}
	return nil
}
