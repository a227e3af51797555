package inject

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// detect names the file system that starts at an offset, "" for none known.
// The name is that of mount(8); the magic numbers are those of the kernel's
// include/uapi/linux/magic.h and of libblkid.
func detect(disk io.ReaderAt, at int64) string {
	b := make([]byte, 0x10100)
	n, _ := disk.ReadAt(b, at) // a short file system has few bytes
	b = b[:n]
	has := func(offset int, magic string) bool {
		return len(b) >= offset && bytes.HasPrefix(b[offset:], []byte(magic))
	}
	switch {
	case has(0x438, "\x53\xef"):
		return extVersion(b)
	case has(3, "NTFS    "):
		return "ntfs"
	case has(3, "EXFAT   "):
		return "exfat"
	case has(54, "FAT1"), has(82, "FAT32"):
		return "vfat"
	case has(0, "XFSB"):
		return "xfs"
	case has(0x10040, "_BHRfS_M"):
		return "btrfs"
	}
	return ""
}

// extVersion tells ext2, 3 and 4 apart by their feature bits
// (Documentation/filesystems/ext4/super.rst); the ext4 driver of the kernel
// mounts all of them.
func extVersion(b []byte) string {
	if len(b) < 0x468 {
		return "ext2"
	}
	compat, incompat := binary.LittleEndian.Uint32(b[0x45c:]), binary.LittleEndian.Uint32(b[0x460:])
	switch {
	case incompat&^0x06 != 0:
		return "ext4"
	case compat&0x04 != 0:
		return "ext3"
	}
	return "ext2"
}

// how says how files get into a file system.
type how struct {
	mount  string // type for mount(8), "" to use mtools
	mtools bool
}

// choose finds a way to write to a type of file system on this host.
func choose(fs string) (how, error) {
	switch {
	case fs == "":
		return how{}, errs.WithRemedy(errs.New(errs.Unsupported, "no file system that is known starts there (ext2-4, NTFS, FAT, exFAT, xfs, btrfs are)"),
			"name the right partition, or `none` if the image has no partition table")
	case fs == "ntfs":
		return chooseNTFS()
	case kernelHas(fs):
		return how{mount: fs}, nil
	case fs == "vfat" && installed("mcopy"):
		return how{mtools: true}, nil
	case fs == "vfat":
		return how{}, errs.WithRemedy(errs.New(errs.Unsupported, "this kernel cannot mount FAT"), "install the package mtools")
	}
	return how{}, errs.WithRemedy(errs.New(errs.Unsupported, "this kernel cannot mount %s", fs), "modprobe "+fs)
}

func chooseNTFS() (how, error) {
	switch {
	case installed(ntfs3g):
		return how{mount: ntfs3g}, nil
	case kernelHas("ntfs3"):
		return how{mount: "ntfs3"}, nil
	}
	return how{}, errs.WithRemedy(errs.New(errs.Unsupported, "this host cannot write NTFS"), "install the package ntfs-3g")
}

// kernelHas reports whether the kernel knows a file system, or has a module
// for it that mount(2) would load.
func kernelHas(fs string) bool {
	b, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return false
	}
	if slices.Contains(strings.Fields(string(b)), fs) {
		return true
	}
	return installed("modprobe") && exec.Command("modprobe", "-q", fs).Run() == nil
}

func installed(program string) bool {
	_, err := host.FindProgram(program)
	return err == nil
}
