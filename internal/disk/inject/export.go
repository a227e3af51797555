package inject

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"syscall"

	"minimega/internal/errs"
	"minimega/internal/host"
)

const (
	daemonName = "qemu-storage-daemon"
	ntfs3g     = "ntfs-3g"
)

// startExport shows an image at path, a file that exists, as a file with the
// content of the disk. The thread that calls must live as long as the export.
func startExport(ctx context.Context, image, path string) (*child, error) {
	program, err := host.FindProgram(daemonName)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "%s is not installed", daemonName), "install the package qemu-system-common")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "this kernel has no FUSE: %w", err), "modprobe fuse")
	}
	node, err := json.Marshal(map[string]any{"driver": "qcow2", "node-name": "disk", "file": map[string]any{"driver": "file", "filename": image}})
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(map[string]any{"type": "fuse", "id": "out", "node-name": "disk", "mountpoint": path, "writable": true})
	if err != nil {
		return nil, err
	}
	c, err := startChild(syscall.SIGKILL, program, "--blockdev", string(node), "--export", string(out))
	if err != nil {
		return nil, err
	}
	if err := c.ready(ctx, path); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

// mountNTFS runs the driver in the foreground. When it is alone it unmounts
// and ends; killed by force it would leave the kernel waiting for it.
func mountNTFS(device, opts, dir string) (unmount func() error, err error) {
	program, err := host.FindProgram(ntfs3g)
	if err != nil {
		return nil, err
	}
	c, err := startChild(syscall.SIGTERM, program, "-o", "no_detach,"+opts, device, dir)
	if err != nil {
		return nil, err
	}
	if err := c.ready(context.Background(), dir); err != nil {
		return nil, errs.New(errs.Invalid, "cannot mount it as NTFS: %w", errors.Join(err, c.stop()))
	}
	return func() error {
		if err := unmountFrom(dir); err != nil {
			return errors.Join(err, c.stop())
		}
		return c.wait()
	}, nil
}
