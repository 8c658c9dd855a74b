package nriplugin

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"
)

func TestCgroupPath(t *testing.T) {
	for _, tc := range []struct {
		name, cgroup, want string
		fails              bool
	}{
		{name: "of the cgroupfs driver", cgroup: "/kubepods/burstable/podabc/c0ffee", want: "kubepods/burstable/podabc/c0ffee"},
		{name: "without a leading slash", cgroup: "kubepods/podabc/c0ffee", want: "kubepods/podabc/c0ffee"},
		{name: "with needless slashes", cgroup: "//kubepods//podabc/./c0ffee/", want: "kubepods/podabc/c0ffee"},
		{name: "that tries to leave the mount", cgroup: "/../../../etc/passwd", want: "etc/passwd"},
		{name: "in the middle of which it tries to leave", cgroup: "kubepods/../../../x", want: "x"},
		{name: "of a slice three deep", cgroup: "kubepods-burstable-podabc.slice:cri-containerd:c0ffee",
			want: "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podabc.slice/cri-containerd-c0ffee.scope"},
		{name: "of a UID whose dashes are underscores", cgroup: "kubepods-pod1_2_3.slice:crio:c0ffee",
			want: "kubepods.slice/kubepods-pod1_2_3.slice/crio-c0ffee.scope"},
		{name: "of a slice without parents", cgroup: "system.slice:docker:c0ffee", want: "system.slice/docker-c0ffee.scope"},
		{name: "without a prefix", cgroup: "system.slice::c0ffee", want: "system.slice/c0ffee.scope"},
		{name: "in the root slice", cgroup: "-.slice:crio:c0ffee", want: "crio-c0ffee.scope"},
		{name: "empty", cgroup: "", fails: true},
		{name: "of the root", cgroup: "/", fails: true},
		{name: "of the root in disguise", cgroup: "/kubepods/..", fails: true},
		{name: "of something that is no slice", cgroup: "kubepods:crio:c0ffee", fails: true},
		{name: "of a slice without a name", cgroup: ".slice:crio:c0ffee", fails: true},
		{name: "of a container without a name", cgroup: "system.slice:crio:", fails: true},
		{name: "with two dashes in a row", cgroup: "kubepods--x.slice:crio:c0ffee", fails: true},
		{name: "that ends in a dash", cgroup: "kubepods-.slice:crio:c0ffee", fails: true},
		{name: "that begins with a dash", cgroup: "-kubepods.slice:crio:c0ffee", fails: true},
		{name: "with a slash in the slice", cgroup: "../x.slice:crio:c0ffee", fails: true},
		{name: "with a slash in the name", cgroup: "system.slice:crio:../../c0ffee", fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := cgroupPath(tc.cgroup)
			if (err != nil) != tc.fails {
				t.Fatalf("error %v", err)
			}
			if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
			if err == nil && !fs.ValidPath(got) {
				t.Errorf("%q is no path below the mount", got)
			}
		})
	}
}

func TestEffective(t *testing.T) {
	file := func(content string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(content)} }
	for _, tc := range []struct {
		name    string
		files   fstest.MapFS
		want    string
		missing bool
		fails   bool
	}{
		{name: "of cgroup v2", want: "1-2", files: fstest.MapFS{
			"sys/fs/cgroup/cgroup.controllers":             file("cpuset"),
			"sys/fs/cgroup/pod/ctr/cpuset.cpus":            file("0-7\n"),
			"sys/fs/cgroup/pod/ctr/cpuset.cpus.effective":  file("1-2\n"),
			"sys/fs/cgroup/cpuset/pod/ctr/cpuset.cpus":     file("7\n"),
			"sys/fs/cgroup/pod/cpuset.cpus.effective":      file("0-7\n"),
			"sys/fs/cgroup/pod/ctr/x/cpuset.cpus.efective": file("0-7\n"),
		}},
		{name: "of cgroup v1", want: "1-2", files: fstest.MapFS{
			"sys/fs/cgroup/cpuset/pod/ctr/cpuset.cpus":           file("0-7\n"),
			"sys/fs/cgroup/cpuset/pod/ctr/cpuset.effective_cpus": file("1-2\n"),
		}},
		{name: "of cgroup v1 on an old kernel", want: "0-7", files: fstest.MapFS{
			"sys/fs/cgroup/cpuset/pod/ctr/cpuset.cpus": file("0-7\n"),
		}},
		{name: "of a cgroup beside a v2 hierarchy for systemd only", want: "3", files: fstest.MapFS{
			"sys/fs/cgroup/unified/cgroup.controllers":           file(""),
			"sys/fs/cgroup/cpuset/pod/ctr/cpuset.effective_cpus": file("3\n"),
		}},
		{name: "of a cgroup that is gone", missing: true, fails: true, files: fstest.MapFS{
			"sys/fs/cgroup/cgroup.controllers": file("cpuset"),
		}},
		{name: "of a file with something else in it", fails: true, files: fstest.MapFS{
			"sys/fs/cgroup/cgroup.controllers":            file("cpuset"),
			"sys/fs/cgroup/pod/ctr/cpuset.cpus.effective": file("all of them"),
		}},
		{name: "of a directory", fails: true, files: fstest.MapFS{
			"sys/fs/cgroup/cgroup.controllers":              file("cpuset"),
			"sys/fs/cgroup/pod/ctr/cpuset.cpus.effective/x": file(""),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := newCgroups(tc.files).effective("/pod/ctr")
			if (err != nil) != tc.fails || errors.Is(err, fs.ErrNotExist) != tc.missing {
				t.Fatalf("error %v", err)
			}
			if got.String() != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}
