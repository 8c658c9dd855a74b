package draplugin

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/topolet/topolet/allocator"
)

// unplaced is the mount that containers of claims have until they are placed.
var unplaced = specs.Mount{Destination: allocator.Unplaced, Source: allocator.UnplacedSource, Options: []string{"rbind", "ro"}}

func TestContainersOfClaimsHaveAMountThatNobodyCanMake(t *testing.T) {
	r := newRig(t, twoNodes)
	r.mustPrepare(t, allocated("c", cpus("numa-0", "2"), cpus("numa-1", "2")))
	cache, err := cdi.NewCache(cdi.WithSpecDirs(r.cdiDir), cdi.WithAutoRefresh(false))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, id := range cache.ListDevices() {
		all = append(all, id)
		one := &specs.Spec{}
		if _, err := cache.InjectDevices(one, id); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]specs.Mount{unplaced}, one.Mounts); diff != "" {
			t.Errorf("mounts of %s -want +got:\n%s", id, diff)
		}
	}
	both := &specs.Spec{}
	if _, err := cache.InjectDevices(both, all...); err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	if diff := cmp.Diff([]specs.Mount{unplaced}, both.Mounts); diff != "" {
		t.Errorf("mounts of %v -want +got:\n%s", all, diff)
	}
	if _, err := os.Stat(allocator.UnplacedSource); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", allocator.UnplacedSource, err)
	}
	if err := os.Mkdir(allocator.UnplacedSource, 0o700); err == nil {
		t.Errorf("%s can be made in %s", allocator.UnplacedSource, filepath.Dir(allocator.UnplacedSource))
	}
}
