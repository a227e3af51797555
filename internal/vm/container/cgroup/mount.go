package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hidden mounts hierarchies that the system has, but not where we can see them:
// as in a mount namespace of `ip netns exec`, which has a /sys of its own. The
// mounts are nowhere in the tree of files and go with this process.
type hidden struct {
	v1    map[string]string // directory by controller
	v2    string
	files []*os.File
}

// mountHidden finds the hierarchies by /proc/self/cgroup, see cgroups(7).
func mountHidden(selfCgroup io.Reader) (*hidden, error) {
	h := &hidden{v1: map[string]string{}}
	unified := false
	s := bufio.NewScanner(selfCgroup)
	for s.Scan() {
		fields := strings.SplitN(s.Text(), ":", 3)
		if len(fields) != 3 {
			continue
		}
		controllers := strings.Split(fields[1], ",")
		switch {
		case fields[1] == "":
			unified = true
		case slices.ContainsFunc(controllers, func(c string) bool { return slices.Contains(wanted, c) }):
			dir, err := h.mount("cgroup", controllers)
			if err != nil {
				return nil, errors.Join(err, h.close())
			}
			for _, c := range controllers {
				h.v1[c] = dir
			}
		}
	}
	if err := s.Err(); err != nil {
		return nil, errors.Join(err, h.close())
	}
	if unified && len(h.v1) == 0 {
		var err error
		if h.v2, err = h.mount("cgroup2", nil); err != nil {
			return nil, errors.Join(err, h.close())
		}
	}
	return h, nil
}

func (h *hidden) mount(fstype string, controllers []string) (dir string, err error) {
	fd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("%s: %w", fstype, err)
	}
	defer unix.Close(fd)
	for _, c := range controllers {
		if err := unix.FsconfigSetFlag(fd, c); err != nil {
			return "", fmt.Errorf("%s %s: %w", fstype, c, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return "", fmt.Errorf("%s %v: %w", fstype, controllers, err)
	}
	mount, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return "", fmt.Errorf("%s: %w", fstype, err)
	}
	h.files = append(h.files, os.NewFile(uintptr(mount), fstype))
	// By our process id, so that children can use the path, too.
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), mount), nil
}

func (h *hidden) close() error {
	if h == nil {
		return nil
	}
	var failed []error
	for _, f := range h.files {
		failed = append(failed, f.Close())
	}
	return errors.Join(failed...)
}
