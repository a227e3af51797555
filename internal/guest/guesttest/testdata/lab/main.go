// Command lab is the first process of guests that run programs of the machine
// that they are emulated on: its files are theirs, but only to be read. See
// guesttest.RunTests.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/node"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "lab: this runs as the first process of a guest only")
		os.Exit(2)
	}
	os.Clearenv() // the kernel puts the words of its command line there
	m := node.Boot(context.Background())
	if err := lab(m); err != nil {
		fmt.Println("lab:", err)
	}
	m.PowerOff()
	fmt.Println("lab:", m.WaitPower())
	select {} // the first process must not end
}

// lab makes the host's files ours and does what the host has written down.
func lab(m *node.Machine) error {
	const (
		host   = "/host"
		inside = "/run/lab"
	)
	if err := share("host", host, "ro,cache=loose", unix.MS_RDONLY); err != nil {
		return err
	}
	if err := share("lab", inside, "cache=mmap", 0); err != nil {
		return err
	}
	text, err := os.ReadFile(inside + "/plan")
	if err != nil {
		return err
	}
	var plan []job
	if err := json.Unmarshal(text, &plan); err != nil {
		return err
	}
	if err := enter(host); err != nil {
		return err
	}
	if err := unix.Mount("cgroup2", "/sys/fs/cgroup", "cgroup2", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount control groups: %w", err)
	}
	for i, j := range plan {
		if err := j.run(m, filepath.Join(inside, fmt.Sprint(i))); err != nil {
			return err
		}
	}
	return nil
}

// share mounts a directory of the host, see QEMU's documentation of -virtfs.
func share(tag, at, options string, flags uintptr) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(tag, at, "9p", flags, "trans=virtio,version=9p2000.L,msize=262144,"+options); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}

// enter makes a directory the root, with what is mounted here.
func enter(dir string) error {
	for _, at := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		if err := unix.Mount(at, dir+at, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", at, err)
		}
	}
	return errors.Join(os.Chdir(dir), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), os.Chdir("/"))
}

// job is a program to run, as guesttest writes it down.
type job struct {
	Args, Env []string
	Dir       string // of the host; a read-only copy under "/run/lab" if it starts there
}

// run runs the program; what it prints goes to a file, and how it ended to
// another.
func (j job) run(m *node.Machine, files string) error {
	out, err := os.Create(files + ".out")
	if err != nil {
		return err
	}
	cmd := exec.Command(j.Args[0], j.Args[1:]...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = j.Env, j.Dir, out, out
	status := "0"
	if err := m.Procs.Run(cmd); err != nil {
		status = err.Error()
	}
	return errors.Join(out.Close(), os.WriteFile(files+".status", []byte(status), 0o644))
}
