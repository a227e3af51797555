package image

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
)

const (
	sector      = 512
	partStart   = 2048     // sectors, as everybody aligns them today
	slack       = 16 << 20 // bytes free in the partition
	maxDisk     = 2 << 30  // bytes; more is a mistake
	typeFAT32   = 0x0c     // with LBA
	bootCodeMax = 440      // bytes before the disk signature
)

// tools are the programs of other packages that make a disk.
type tools struct {
	mkfs, mcopy, syslinux, qemuImg string // paths
	mbr                            []byte // boot sector code
}

var toolPackages = [][2]string{ // program, Debian package
	{"mkfs.vfat", "dosfstools"}, {"mcopy", "mtools"}, {"syslinux", "syslinux"}, {"qemu-img", "qemu-utils"},
}

// findTools looks for them, also where users other than root do not look, and
// names all that are missing at once.
func findTools() (tools, error) {
	var t tools
	var missing, packages []string
	for i, to := range []*string{&t.mkfs, &t.mcopy, &t.syslinux, &t.qemuImg} {
		var err error
		if *to, err = host.FindProgram(toolPackages[i][0]); err != nil {
			missing = append(missing, toolPackages[i][0])
			packages = append(packages, toolPackages[i][1])
		}
	}
	for _, f := range []string{"/usr/lib/syslinux/mbr/mbr.bin", "/usr/lib/SYSLINUX/mbr.bin", "/usr/share/syslinux/mbr.bin", "/usr/lib/syslinux/bios/mbr.bin"} {
		if code, err := os.ReadFile(f); err == nil && len(code) <= bootCodeMax {
			t.mbr = code
			break
		}
	}
	if t.mbr == nil {
		missing = append(missing, "mbr.bin of syslinux")
		packages = append(packages, "syslinux-common")
	}
	if missing != nil {
		return t, errs.WithRemedy(errs.New(errs.Unsupported, "making a disk needs %s", strings.Join(missing, ", ")),
			"apt-get install "+strings.Join(packages, " "))
	}
	return t, nil
}

// build makes one disk in a directory of its own.
type build struct {
	tools
	dir, raw string
}

func (b build) path(name string) string { return filepath.Join(b.dir, name) }

func (b build) make(ctx context.Context, kernel string) error {
	sectors, err := b.create(kernel)
	if err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	partition := fmt.Sprintf("%s@@%d", b.raw, partStart*sector)
	for _, step := range [][]string{
		{b.mkfs, "-F", "32", "-n", "MINIMEGA", "-i", "6d6d6567", "-h", fmt.Sprint(partStart), "--offset", fmt.Sprint(partStart), b.raw, fmt.Sprint(sectors / 2)},
		{b.mcopy, "-i", partition, b.path("syslinux.cfg"), b.path("initrd"), "::/"},
		{b.mcopy, "-i", partition, kernel, "::/vmlinuz"},
		{b.syslinux, "--install", "-t", fmt.Sprint(partStart * sector), b.raw},
		{b.qemuImg, "convert", "-f", "raw", "-O", "qcow2", b.raw, b.path("qcow2")},
	} {
		if err := b.run(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// create makes the empty raw disk, with its boot sector, and returns the size
// of the partition.
func (b build) create(kernel string) (sectors int64, err error) {
	size := int64(slack)
	for _, f := range []string{kernel, b.path("initrd")} {
		st, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		size += st.Size()
	}
	if size > maxDisk {
		return 0, errs.New(errs.Invalid, "kernel and initrd are %d MiB, too much for a guest disk", size>>20)
	}
	size = max(size, 40<<20) // FAT32 is not made for less
	sectors = (size + 1<<20 - 1) >> 20 << 20 / sector
	f, err := os.Create(b.raw)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Truncate((partStart + sectors) * sector); err != nil {
		return 0, err
	}
	_, err = f.WriteAt(bootSector(b.mbr, uint32(sectors)), 0)
	return sectors, errors.Join(err, f.Close())
}

// bootSector is an MBR with code and one active partition.
func bootSector(code []byte, sectors uint32) []byte {
	s := make([]byte, sector)
	copy(s[:bootCodeMax], code)
	p := s[446:]
	p[0] = 0x80                         // active
	p[1], p[2], p[3] = 0xfe, 0xff, 0xff // start and end in cylinders:
	p[5], p[6], p[7] = 0xfe, 0xff, 0xff // out of range, use LBA
	p[4] = typeFAT32
	binary.LittleEndian.PutUint32(p[8:], partStart)
	binary.LittleEndian.PutUint32(p[12:], sectors)
	s[510], s[511] = 0x55, 0xaa
	return s
}

func (b build) run(ctx context.Context, args []string) error {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "MTOOLS_SKIP_CHECK=1", "TMPDIR="+b.dir)
	if err := cmd.Run(); err != nil {
		return errs.New(errs.Internal, "make disk: %s: %w: %s", filepath.Base(args[0]), err, strings.TrimSpace(out.String()))
	}
	return nil
}
