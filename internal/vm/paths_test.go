package vm

import (
	"slices"
	"strings"
	"testing"
)

// Every file of a configuration is named, and can be given another path; a
// program that is looked up in $PATH is none.
func TestEachFile(t *testing.T) {
	c := NewConfig()
	c.QemuPath, c.KernelPath, c.InitrdPath, c.CdromPath, c.MigratePath = "/f/qemu", "/f/kernel", "/f/initrd", "/f/cdrom", "/f/state"
	c.FilesystemPath, c.Preinit = "/f/root", "/f/preinit"
	c.Disks = []DiskConfig{{Path: "/f/disk1"}, {Path: "/f/disk2"}}
	c.VolumePaths = map[string]string{"/inside": "/f/volume"}
	want := []string{"/f/cdrom", "/f/disk1", "/f/disk2", "/f/initrd", "/f/kernel", "/f/preinit", "/f/qemu", "/f/root", "/f/state", "/f/volume"}
	if got := files(t, c); !slices.Equal(got, want) {
		t.Errorf("files: %q", got)
	}
	for i := range want {
		want[i] = strings.Replace(want[i], "/f/", "/g/", 1)
	}
	if got := files(t, c); !slices.Equal(got, want) {
		t.Errorf("changed: %q", got)
	}
	for _, name := range []string{DefaultQemu, "qemu-system-x86_64", ""} {
		c := NewConfig()
		c.QemuPath = name
		if got := files(t, c); len(got) != 0 {
			t.Errorf("qemu %q: %q", name, got)
		}
	}
}

// files are those that EachFile names, sorted. It moves them from /f to /g.
func files(t *testing.T, c *Config) (list []string) {
	t.Helper()
	err := c.EachFile(func(path *string) error {
		list = append(list, *path)
		*path = strings.Replace(*path, "/f/", "/g/", 1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}
