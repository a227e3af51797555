package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bareClone runs a program in new namespaces and waits for its end.
func bareClone(path string) error {
	cmd := exec.Command(path)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	return cmd.Run()
}

// crun runs a container of the OCI runtime specification.
type crun struct {
	path, bundle string
	next         atomic.Int64
}

// newCrun writes a bundle for root; nil if crun is not installed.
func newCrun(root string) (*crun, error) {
	path, err := exec.LookPath("crun")
	if err != nil {
		fmt.Println("container: no crun to compare with (Debian package crun)")
		return nil, nil
	}
	bundle, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	var spaces []object
	for _, s := range []string{"pid", "mount", "ipc", "uts"} {
		spaces = append(spaces, object{"type": s})
	}
	text, err := json.Marshal(object{
		"ociVersion": "1.0.0",
		"process":    object{"args": []string{"/exit"}, "cwd": "/", "user": object{"uid": 0, "gid": 0}, "noNewPrivileges": true},
		"root":       object{"path": root},
		"mounts":     []object{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":      object{"namespaces": spaces},
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(bundle))
	}
	return &crun{path: path, bundle: bundle}, nil
}

// runner returns what runs a container that ends at once, for workers that end
// with the measurement. crun 1.8 refuses to start where both versions of
// control groups offer something, so each worker has a thread that does not see
// version 2. Without crun it does nothing.
func (c *crun) runner() func(worker int) error {
	if c == nil {
		return func(int) error { return nil }
	}
	var hidden [side]bool // each is of one worker alone
	return func(worker int) error {
		if !hidden[worker] {
			hidden[worker] = true
			if err := hide(); err != nil {
				return err
			}
		}
		return c.run()
	}
}

// hide takes version 2 of control groups out of this goroutine's sight.
func hide() error {
	runtime.LockOSThread() // ends with the worker
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err == nil {
		_ = unix.Unmount("/sys/fs/cgroup/unified", unix.MNT_DETACH) // where there is one
	}
	return err
}

func (c *crun) run() error {
	out, err := exec.Command(c.path, "--cgroup-manager=disabled", "run", "--bundle", c.bundle, fmt.Sprintf("mmbench%d-%d", os.Getpid(), c.next.Add(1))).CombinedOutput()
	if err != nil {
		return fmt.Errorf("crun: %w: %s", err, out)
	}
	return nil
}

// Close removes the bundle.
func (c *crun) Close() error {
	if c == nil {
		return nil
	}
	return os.RemoveAll(c.bundle)
}
