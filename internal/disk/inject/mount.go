package inject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// inNamespace runs f on a thread with mounts of its own: what f mounts nobody
// else sees, and all of it goes with the thread, also when this process dies.
func inNamespace(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := ownMounts()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// ownMounts gives the thread, and what it starts from now on, a copy of its
// mounts that no other thread or process shares.
func ownMounts() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return errs.WithRemedy(errs.New(errs.Permission, "cannot mount: %w", err), "run minimega as root")
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return errs.New(errs.Permission, "cannot mount: %w", err)
	}
	return nil
}

// attachLoop makes a block device of a part of a file. It goes when its last
// user closes it.
func attachLoop(file *os.File, p Partition) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "no loop devices: %w", err), "modprobe loop")
	}
	defer control.Close()
	for range 100 { // others take devices too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("free loop device: %w", err)
		}
		dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		c := unix.LoopConfig{Fd: uint32(file.Fd())}
		c.Info.Offset, c.Info.Sizelimit, c.Info.Flags = uint64(p.Start), uint64(p.Size), unix.LO_FLAGS_AUTOCLEAR
		err = unix.IoctlLoopConfigure(int(dev.Fd()), &c)
		if err == nil {
			return dev, nil
		}
		_ = dev.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("loop device: %w", err)
		}
	}
	return nil, errs.New(errs.Resource, "no loop device is free")
}

// detachLoop lets go of the device and waits until all others have, too: a
// driver of FUSE ends a moment after its file system is unmounted.
func detachLoop(dev *os.File) error {
	attached := filepath.Join("/sys/block", filepath.Base(dev.Name()), "loop/backing_file")
	was, err := os.ReadFile(attached)
	if err := errors.Join(err, dev.Close()); err != nil {
		return err
	}
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for end := time.Now().Add(childTime); time.Now().Before(end); <-tick.C {
		if now, err := os.ReadFile(attached); err != nil || !bytes.Equal(now, was) { // gone, or somebody else's
			return nil
		}
	}
	return fmt.Errorf("%s is still in use", dev.Name())
}

// mount mounts a device, with the options of the user. Programs and devices on
// it stay without effect.
func mount(ctx context.Context, device, kind, options, dir string) (unmount func() error, err error) {
	opts := "nosuid,nodev,noexec"
	if options != "" {
		opts += "," + options
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if kind == ntfs3g {
		unmount, err = mountNTFS(device, opts, dir)
	} else {
		unmount, err = mountKernel(device, kind, opts, dir)
	}
	if err != nil {
		return nil, err
	}
	if err := writable(dir); err != nil {
		return nil, errors.Join(err, unmount())
	}
	return unmount, nil
}

func mountKernel(device, kind, opts, dir string) (unmount func() error, err error) {
	program, err := host.FindProgram("mount")
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "mount is not installed"), "install the package mount")
	}
	// Not to be killed half-way: nobody could tell whether it has mounted.
	out, err := exec.Command(program, "-n", "-t", kind, "-o", opts, "--", device, dir).CombinedOutput()
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot mount it as %s: %s: %w", kind, oneLine(out), err)
	}
	return func() error { return unmountFrom(dir) }, nil
}

// unmountFrom waits for processes that somebody else starts: they have what was
// open here until they execute.
func unmountFrom(dir string) error {
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for end := time.Now().Add(childTime); ; <-tick.C {
		err := unix.Unmount(dir, 0)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return &os.PathError{Op: "unmount", Path: dir, Err: err}
		}
	}
}

func writable(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return err
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return errs.WithRemedy(errs.New(errs.State, "the file system can only be read"),
			"shut its system down properly (no hibernation or fast start), or repair it, and leave `ro` out of the options")
	}
	return nil
}

func oneLine(b []byte) string { return strings.Join(strings.Fields(string(b)), " ") }
