// Package image makes a disk that boots the built-in guest by itself: a BIOS
// boot sector, one FAT partition with a boot loader, kernel and initrd, in a
// qcow2 file. It needs no root and mounts nothing.
package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/guest/initrd"
)

// Options say what the disk boots.
type Options struct {
	Kernel string         // bootable file
	Initrd initrd.Options // made into the disk
	Append string         // added to the kernel command line
}

// baseLine makes the kernel talk on screen and serial line, and no more than
// it must.
const baseLine = "console=tty0 console=ttyS0,115200 quiet"

// Write makes the disk at file, which appears there complete or not at all.
func Write(ctx context.Context, file string, o Options) (initrd.Report, error) {
	var rep initrd.Report
	if strings.ContainsAny(o.Append, "\n\r\x00") {
		return rep, errs.New(errs.Invalid, "the kernel command line cannot hold a line break")
	}
	t, err := findTools()
	if err != nil {
		return rep, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".guest-disk-*")
	if err != nil {
		return rep, fmt.Errorf("make disk: %w", err)
	}
	defer os.RemoveAll(dir)
	b := build{tools: t, dir: dir, raw: filepath.Join(dir, "raw")}
	if rep, err = initrd.WriteFile(b.path("initrd"), o.Initrd); err != nil {
		return rep, err
	}
	config := loaderConfig(o.Append)
	if err := os.WriteFile(b.path("syslinux.cfg"), []byte(config), 0o644); err != nil {
		return rep, fmt.Errorf("make disk: %w", err)
	}
	if err := b.make(ctx, o.Kernel); err != nil {
		return rep, err
	}
	if err := os.Rename(b.path("qcow2"), file); err != nil {
		return rep, fmt.Errorf("make disk: %w", err)
	}
	return rep, nil
}

func loaderConfig(more string) string {
	return "DEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n  KERNEL /vmlinuz\n  INITRD /initrd\n  APPEND " +
		strings.TrimSpace(baseLine+" "+more) + "\n"
}
