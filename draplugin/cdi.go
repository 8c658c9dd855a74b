package draplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/utils/cpuset"
	"tags.cncf.io/container-device-interface/pkg/cdi"
	"tags.cncf.io/container-device-interface/pkg/parser"
	cdispec "tags.cncf.io/container-device-interface/specs-go"

	"github.com/topolet/topolet/allocator"
	"github.com/topolet/topolet/draplugin/devlinks"
	"github.com/topolet/topolet/draplugin/fpgaprogram"
	"github.com/topolet/topolet/topology/device"
)

// specPrefix begins the name of every CDI spec file that this driver writes, so
// that it can tell its own from others' in the same folder.
const specPrefix = "topolet.dev-claim_"

// cdiFolder writes one CDI spec file per claim, with one CDI device per request.
// The files are a function of the grants: each can be written again at any time.
type cdiFolder struct {
	dir   string
	cache *cdi.Cache
	// hook is the program that makes links in containers and has ports programmed, by its path
	// on the host, in topolet's state folder.
	hook string
	// programs is the host's folder of programs, or empty.
	programs string
}

func newCDIFolder(dir, hook, programs string) (cdiFolder, error) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(dir), cdi.WithAutoRefresh(false))
	if err != nil {
		return cdiFolder{}, fmt.Errorf("CDI folder %s: %w", dir, err)
	}
	return cdiFolder{dir: dir, cache: cache, hook: hook, programs: programs}, nil
}

// write replaces the spec file of a grant. On an error the old one is there, and
// nothing else: what a crash leaves has a name that no runtime reads, and reset
// removes it.
func (f cdiFolder) write(g allocator.Grant) error {
	spec, err := f.specOf(g)
	if err != nil {
		return err
	}
	path := filepath.Join(f.dir, specName(g.UID))
	if err := replaceSpec(path, spec); err != nil {
		return fmt.Errorf("CDI spec of claim %s/%s: %w", g.Namespace, g.Name, &allocator.SaveError{Path: path, Err: err})
	}
	return nil
}

// replaceSpec puts a spec in the place of a file in one step, once a runtime could
// read it.
func replaceSpec(path string, spec *cdispec.Spec) error {
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // everybody may know which devices there are
		return err
	}
	temp := path + "-new"
	defer os.Remove(temp) //nolint:errcheck // gone already after the rename
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	if _, err := cdi.ReadSpec(temp, 0); err != nil {
		return err
	}
	return os.Rename(temp, path)
}

// remove deletes the spec file of a claim, if there is one.
func (f cdiFolder) remove(uid allocator.ClaimUID) error {
	if err := f.cache.RemoveSpec(specName(uid)); err != nil {
		return fmt.Errorf("remove CDI spec of claim %s: %w", uid, err)
	}
	return nil
}

// reset makes the folder hold the specs of exactly these grants, among those
// that are this driver's own.
func (f cdiFolder) reset(grants []allocator.Grant) error {
	wanted := map[string]bool{}
	for _, g := range grants {
		if err := f.write(g); err != nil {
			return err
		}
		wanted[specName(g.UID)] = true
	}
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list CDI folder: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), specPrefix) && !wanted[e.Name()] {
			if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove stale CDI spec: %w", err)
			}
		}
	}
	return nil
}

func specName(uid allocator.ClaimUID) string { return specPrefix + string(uid) + ".json" }

// specOf describes the claim's requests. Each device carries an environment
// variable, because CDI wants every device to change something, and because
// start-up scripts like to know what they got; nothing ever reads it back.
func (f cdiFolder) specOf(g allocator.Grant) (*cdispec.Spec, error) {
	vendor, class, _ := parser.ParseDevice(allocator.Ref{Claim: g.UID}.String())
	spec := &cdispec.Spec{Kind: vendor + "/" + class, ContainerEdits: untilPlaced}
	for _, request := range requestNames(g) {
		_, _, name := parser.ParseDevice(deviceID(g.UID, request))
		spec.Devices = append(spec.Devices, cdispec.Device{
			Name: name,
			ContainerEdits: cdispec.ContainerEdits{
				Env:         environment(g, request),
				DeviceNodes: deviceNodes(g, request),
				Mounts:      mounts(g, request),
				Hooks:       f.hooks(g, request),
			},
		})
	}
	version, err := cdispec.MinimumRequiredVersion(spec)
	if err != nil {
		return nil, fmt.Errorf("CDI spec of claim %s/%s: %w", g.Namespace, g.Name, err)
	}
	spec.Version = version
	return spec, nil
}

// untilPlaced keeps any container of the claim from being created before it is placed.
var untilPlaced = cdispec.ContainerEdits{
	Mounts: []*cdispec.Mount{{HostPath: allocator.UnplacedSource, ContainerPath: allocator.Unplaced, Options: []string{"rbind", "ro"}}},
}

// deviceID is the CDI device by which a container names a request of a claim.
func deviceID(uid allocator.ClaimUID, request string) string {
	return allocator.Ref{Claim: uid, Request: request}.String()
}

// environment tells what the request got: CPUs, the NUMA nodes of its memory, or the names
// and addresses of other devices.
func environment(g allocator.Grant, request string) []string {
	var env []string
	if cpus := g.RunsOn(request); !cpus.IsEmpty() {
		env = append(env, envName("TOPOLET_CPUS", g.UID, request)+"="+cpus.String())
	}
	if nodes := g.MemoryNodesOf(request); len(nodes) > 0 {
		env = append(env, envName("TOPOLET_MEMORY_NODES", g.UID, request)+"="+cpuset.New(nodes...).String())
	}
	var addresses, names []string
	for _, p := range g.Parts {
		if p.Name == request && p.Hardware != nil {
			names = append(names, p.Domain)
			if p.Hardware.Address != "" {
				addresses = append(addresses, p.Hardware.Address)
			}
		}
	}
	if len(names) > 0 {
		env = append(env, envName("TOPOLET_DEVICES", g.UID, request)+"="+strings.Join(names, ","))
	}
	if len(addresses) > 0 {
		env = append(env, envName("TOPOLET_PCI", g.UID, request)+"="+strings.Join(addresses, ","))
	}
	return env
}

// hookTimeout is how many seconds the runtime waits for a device's own hook.
const hookTimeout = 60

// deviceHook runs on the host (OCI runtime specification, config, createRuntime hooks).
func deviceHook(k device.Hook) *cdispec.Hook {
	seconds := hookTimeout
	return &cdispec.Hook{HookName: "createRuntime", Path: k.Path, Args: []string{filepath.Base(k.Path), k.Argument}, Timeout: &seconds}
}

// hooks have a request's devices programmed, run the hooks of devices, each once, and make
// links.
func (f cdiFolder) hooks(g allocator.Grant, request string) []*cdispec.Hook {
	var hooks []*cdispec.Hook
	for _, p := range g.Parts {
		if p.Name == request && p.Program != "" && f.hook != "" {
			job := fpgaprogram.Job{Device: p.Domain, AFUID: p.Program, StateDir: filepath.Dir(f.hook), Folder: f.programs}
			hooks = append(hooks, job.Hook(f.hook))
		}
	}
	var run []device.Hook
	var links []device.Link
	for _, h := range g.HardwareOf(request) {
		for _, k := range h.Hooks {
			if !slices.Contains(run, k) {
				run = append(run, k)
				hooks = append(hooks, deviceHook(k))
			}
		}
		links = append(links, h.Links...)
	}
	if len(links) > 0 && f.hook != "" {
		hooks = append(hooks, devlinks.Hook(f.hook, links))
	}
	return hooks
}

// deviceNodes are those of a request's devices, each once. The kernel lets the container
// open them and no others; it may not make new ones.
func deviceNodes(g allocator.Grant, request string) []*cdispec.DeviceNode {
	var nodes []*cdispec.DeviceNode
	seen := map[string]bool{}
	for _, p := range g.Parts {
		if p.Name != request || p.Hardware == nil {
			continue
		}
		permissions := "rw"
		if p.ReadOnly {
			permissions = "r"
		}
		for _, n := range p.Hardware.Nodes {
			if seen[n.Path] {
				continue
			}
			seen[n.Path] = true
			nodes = append(nodes, &cdispec.DeviceNode{Path: n.Path, Type: n.Kind(), Major: n.Major, Minor: n.Minor, Permissions: permissions})
		}
	}
	return nodes
}

// mounts are the host's folders and files that a request's devices come with, each once.
func mounts(g allocator.Grant, request string) []*cdispec.Mount {
	var list []*cdispec.Mount
	for _, h := range g.HardwareOf(request) {
		for _, m := range h.Mounts {
			if !slices.ContainsFunc(list, func(other *cdispec.Mount) bool { return other.HostPath == m.Path }) {
				list = append(list, &cdispec.Mount{HostPath: m.Path, ContainerPath: m.Path, Options: []string{"rbind", "ro", "nosuid", "nodev", "noexec"}})
			}
		}
	}
	return list
}

func envName(prefix string, uid allocator.ClaimUID, request string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(prefix + "_" + string(uid) + "_" + request))
}

// requestNames returns the names of the grant's requests, each once.
func requestNames(g allocator.Grant) []string {
	var names []string
	seen := map[string]bool{}
	for _, p := range g.Parts {
		if !seen[p.Name] {
			seen[p.Name] = true
			names = append(names, p.Name)
		}
	}
	return names
}
