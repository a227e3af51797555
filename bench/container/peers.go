package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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

// crun runs containers of the OCI runtime specification.
type crun struct {
	path   string
	args   []string // before the command
	bundle string
	next   atomic.Int64
}

// newCrun writes a bundle for root: that which `crun spec` makes, with the
// limits that ours has; or, if bare, one with nothing that a container can do
// without: /proc alone, no devices, nothing masked, no control group. It is nil
// if crun is not installed.
func newCrun(root string, bare bool) (*crun, error) {
	path, err := exec.LookPath("crun")
	if err != nil {
		fmt.Println("container: no crun to compare with (Debian package crun)")
		return nil, nil
	}
	bundle, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return nil, err
	}
	c := &crun{path: path, bundle: bundle}
	if bare {
		c.args = []string{"--cgroup-manager=disabled"}
		err = writeJSON(c.config(), bareSpec(root))
	} else {
		c.args = []string{"--cgroup-manager=cgroupfs"}
		err = c.writeSpec(root)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *crun) config() string { return filepath.Join(c.bundle, "config.json") }

type object = map[string]any

func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func bareSpec(root string) object {
	var spaces []object
	for _, s := range []string{"pid", "mount", "ipc", "uts"} {
		spaces = append(spaces, object{"type": s})
	}
	return object{
		"ociVersion": "1.0.0",
		"process":    object{"args": []string{"/exit"}, "cwd": "/", "user": object{"uid": 0, "gid": 0}, "noNewPrivileges": true},
		"root":       object{"path": root},
		"mounts":     []object{{"destination": "/proc", "type": "proc", "source": "proc"}},
		"linux":      object{"namespaces": spaces},
	}
}

// writeSpec has crun write its bundle, and puts in what is to run, and the
// limits of processor, memory and processes.
func (c *crun) writeSpec(root string) error {
	cmd := exec.Command(c.path, "spec")
	cmd.Dir = c.bundle
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("crun spec: %w: %s", err, out)
	}
	text, err := os.ReadFile(c.config())
	if err != nil {
		return err
	}
	var spec struct {
		object
		Process, Linux object
	}
	if err := errors.Join(json.Unmarshal(text, &spec.object), json.Unmarshal(text, &spec)); err != nil {
		return err
	}
	spec.Process["args"], spec.Process["terminal"] = []string{"/exit"}, false
	resources, ok := spec.Linux["resources"].(object)
	if !ok {
		return errors.New("crun spec: no resources")
	}
	resources["cpu"] = object{"period": 1_000_000, "quota": 1_000_000}
	resources["memory"] = object{"limit": memory << 20}
	resources["pids"] = object{"limit": 1024}
	spec.object["process"], spec.object["linux"], spec.object["root"] = spec.Process, spec.Linux, object{"path": root}
	return writeJSON(c.config(), spec.object)
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
	out, err := c.tryRun()
	if err != nil { // two of crun 1.8 in one root get into each other's way once in a thousand times
		out, err = c.tryRun()
	}
	if err != nil {
		return fmt.Errorf("crun: %w: %s", err, out)
	}
	return nil
}

func (c *crun) tryRun() ([]byte, error) {
	id := fmt.Sprintf("%s-%d", filepath.Base(c.bundle), c.next.Add(1))
	return exec.Command(c.path, append(slices.Clone(c.args), "run", "--bundle", c.bundle, id)...).CombinedOutput()
}

// Close removes the bundle.
func (c *crun) Close() error {
	if c == nil {
		return nil
	}
	return os.RemoveAll(c.bundle)
}
