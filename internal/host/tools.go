package host

import (
	"context"
	"os/exec"

	"minimega/internal/errs"
)

// FindProgram looks for a program in $PATH and where system programs are, which
// $PATH of others than root may leave out.
func FindProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(dir + name)
	}
	return path, err
}

// tool is a program that minimega runs for few purposes.
type tool struct {
	name, pkg string // pkg is the Debian package that has it
	without   string // what cannot be done without it
}

// tools are all of them. What a command line, `vm config` or $PAGER chooses is
// none: that it is missing is said where it is used.
var tools = []tool{
	{"modprobe", "kmod", "modules of the kernel have to be loaded by hand"},
	{"xz", "xz-utils", "archives, disks and modules of a guest kernel that are compressed with xz cannot be read"},
	{"zstd", "zstd", "modules of a guest kernel that are compressed with zstd cannot be read"},
	{"qemu-storage-daemon", "qemu-system-common", "`disk inject` puts no files into images"},
	{"mount", "mount", "`disk inject` puts no files into images, except on FAT"},
	{"ntfs-3g", "ntfs-3g", "`disk inject` writes NTFS only where the kernel can"},
	{"mcopy", "mtools", "`disk inject` writes FAT only where the kernel can, and `minimega guest disk` makes no disks"},
	{"mkfs.vfat", "dosfstools", "`minimega guest disk` makes no disks"},
	{"syslinux", "syslinux", "`minimega guest disk` makes no disks"},
	{"ffmpeg", "ffmpeg", "rfbplay makes .gif and .png, and no films"},
}

// Tools checks for programs that minimega can do without, but for one thing or
// another; find looks for one.
func Tools(find func(name string) (string, error)) []Check {
	var checks []Check
	for _, t := range tools {
		checks = append(checks, Check{Name: t.name, Optional: true, Run: func(context.Context) error {
			if _, err := find(t.name); err != nil {
				return errs.WithRemedy(errs.New(errs.NotFound, "not installed: %s", t.without), "apt-get install "+t.pkg)
			}
			return nil
		}})
	}
	return checks
}
