// Package cgroup limits and freezes groups of processes through the files of
// the kernel's control groups (cgroups(7)): version 2 where that is all there
// is, else version 1.
package cgroup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// DefaultRoot is where systems mount control groups.
const DefaultRoot = "/sys/fs/cgroup"

// period is the time in which a group may use its CPU time, in microseconds.
const period = 1000000

// Limits of a group. Zero is none.
type Limits struct {
	CPUs   uint64 // seconds of CPU time per second
	Memory uint64 // bytes
	Pids   uint64
}

// Tree is the part of the hierarchy that belongs to one owner.
type Tree struct {
	unified string            // directory of version 2, "" for version 1
	dirs    map[string]string // of version 1, by controller
	missing []string
	hidden  *hidden // mounts of our own, or nil
	lent    bool    // by somebody with more rights

	mu    sync.Mutex // held while the owner's directories are made, and guards the field below
	ready bool
}

// wanted are the controllers that limits and isolation need.
var wanted = []string{"cpu", "memory", "pids", "freezer", "devices"}

// Open finds the hierarchies mounted under root, or else those of the system,
// and the directory parent (of two path elements) in them, which is made when
// the first group is made.
func Open(root, parent string) (*Tree, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v1, v2, err := mounts(f, root)
	if err != nil {
		return nil, err
	}
	if len(v1) > 0 || v2 != "" {
		return newTree(v1, v2, parent)
	}
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	h, err := mountHidden(own)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "no control groups are mounted under %s: %w", root, err),
			"mount -t cgroup2 cgroup2 "+root)
	}
	t, err := newTree(h.v1, h.v2, parent)
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	t.hidden = h
	return t, nil
}

// OpenLent takes the hierarchy of version 2 at dir, which belongs to an ordinary
// user: without the list of devices, who cannot make any.
func OpenLent(dir, parent string) (*Tree, error) {
	t, err := newTree(nil, dir, parent)
	if err != nil {
		return nil, err
	}
	t.lent = true
	return t, nil
}

// newTree takes the directories of the hierarchies, of version 1 by controller.
func newTree(v1 map[string]string, v2, parent string) (*Tree, error) {
	t := &Tree{dirs: map[string]string{}}
	for _, c := range wanted {
		if dir := v1[c]; dir != "" {
			t.dirs[c] = filepath.Join(dir, parent)
		} else {
			t.missing = append(t.missing, c)
		}
	}
	switch {
	case len(t.dirs) > 0:
		return t, nil
	case v2 == "":
		return nil, errs.New(errs.Unsupported, "this system has no control groups")
	}
	t.unified, t.missing = filepath.Join(v2, parent), nil
	have, err := os.ReadFile(filepath.Join(v2, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	for _, c := range unifiedControllers {
		if !slices.Contains(strings.Fields(string(have)), c) {
			t.missing = append(t.missing, c)
		}
	}
	return t, nil
}

// mounts reads /proc/self/mountinfo, see proc_pid_mountinfo(5).
func mounts(r io.Reader, root string) (v1 map[string]string, v2 string, err error) {
	v1 = map[string]string{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		l, m := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(m) < 3 {
			continue
		}
		dir := l[4]
		if dir != root && !strings.HasPrefix(dir, strings.TrimSuffix(root, "/")+"/") {
			continue
		}
		switch m[0] {
		case "cgroup2":
			v2 = dir
		case "cgroup":
			for _, o := range strings.Split(m[2], ",") {
				if slices.Contains(wanted, o) {
					v1[o] = dir
				}
			}
		}
	}
	return v1, v2, s.Err()
}

// Missing names the controllers that the kernel or the system does not offer:
// what they would limit is not limited.
func (t *Tree) Missing() []string { return slices.Clone(t.missing) }

// Group is the group of one container.
type Group struct {
	tree *Tree
	name string
}

// Group returns the group of this name, whether it exists or not.
func (t *Tree) Group(name string) *Group { return &Group{t, name} }

// all returns the directories that a group has, or had in an earlier daemon.
func (g *Group) all() []string {
	if g.tree.unified != "" {
		return []string{filepath.Join(g.tree.unified, g.name)}
	}
	var dirs []string
	for _, c := range wanted {
		if d := g.tree.dirs[c]; d != "" {
			dirs = append(dirs, filepath.Join(d, g.name))
		}
	}
	return dirs
}

// shared reports whether the groups of an owner have a directory in common for
// a controller of version 1: the list of devices is the same for all.
func (t *Tree) shared(controller string) bool { return controller == "devices" && len(t.dirs) > 1 }

// Make makes the group with its limits, or leaves nothing. A group left by an
// earlier one of that name is used again if no process is in it.
func (t *Tree) Make(name string, l Limits) (*Group, error) {
	g := t.Group(name)
	err := t.prepare()
	if err != nil {
		return nil, err
	}
	if t.unified != "" {
		err = g.makeUnified(l)
	} else {
		err = g.makeLegacy(l)
	}
	if err != nil {
		return nil, errors.Join(err, g.Remove(context.Background()))
	}
	return g, nil
}

// prepare makes the owner's directories, once.
func (t *Tree) prepare() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ready {
		return nil
	}
	err := t.prepareLegacy()
	if t.unified != "" {
		err = t.prepareUnified()
	}
	t.ready = err == nil
	return err
}

// Enter returns the files to which a process of one thread writes 0 to enter
// the group, in version 1. Version 2 has none: see Dir.
func (g *Group) Enter() []string {
	if g.tree.unified != "" {
		return nil
	}
	var files []string
	for _, c := range wanted {
		d := g.tree.dirs[c]
		switch {
		case d == "":
		case g.tree.shared(c):
			files = append(files, filepath.Join(d, "tasks"))
		default:
			files = append(files, filepath.Join(d, g.name, "tasks"))
		}
	}
	return files
}

// Dir is the directory into which a process is cloned in version 2, "" in
// version 1.
func (g *Group) Dir() string {
	if g.tree.unified == "" {
		return ""
	}
	return filepath.Join(g.tree.unified, g.name)
}

// set writes a value to a file of a controller.
func set(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func get(dir, file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	return strings.TrimSpace(string(b)), err
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// How long and how often the kernel is asked whether it is done.
const (
	patience  = 5 * time.Second
	pollFirst = 200 * time.Microsecond
	pollLast  = 20 * time.Millisecond
)

// await asks until the answer is yes, ctx ends or patience does.
func await(ctx context.Context, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	t := time.NewTimer(0)
	defer t.Stop()
	for wait := pollFirst; ; wait = min(wait*2, pollLast) {
		yes, err := ask()
		if yes || err != nil {
			return err
		}
		t.Reset(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		}
	}
}

// Remove removes the group, whose processes have ended. One that is not there
// is no error.
func (g *Group) Remove(ctx context.Context) error {
	var failed []error
	for _, dir := range g.all() {
		failed = append(failed, await(ctx, "processes stay in "+dir, func() (bool, error) {
			err := unix.Rmdir(dir)
			switch {
			case err == nil, errors.Is(err, fs.ErrNotExist):
				return true, nil
			case errors.Is(err, unix.EBUSY):
				return false, nil
			}
			return false, &os.PathError{Op: "rmdir", Path: dir, Err: err}
		}))
	}
	return errors.Join(failed...)
}

// Pids returns the processes in the group.
func (g *Group) Pids() ([]int, error) {
	var pids []int
	for _, dir := range g.all() {
		text, err := get(dir, "cgroup.procs")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(text) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// Kill ends all processes in the group, frozen or not, and returns when none
// is left.
func (g *Group) Kill(ctx context.Context) error {
	return await(ctx, "processes do not end", func() (bool, error) {
		pids, err := g.Pids()
		if err != nil || len(pids) == 0 {
			return len(pids) == 0, err
		}
		for _, pid := range pids {
			// Membership was read a moment ago; that a pid was reused since is
			// as unlikely as in any kill(1).
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if g.tree.unified != "" {
			return false, nil // who is frozen ends, too
		}
		err = g.Thaw(ctx)
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil // all have ended, and somebody who saw it removed the group
		}
		return false, err
	})
}

// Close removes the owner's directories, unless processes are left in them.
// Groups without any are those of containers that ended while no daemon ran.
func (t *Tree) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ready = false
	dirs := []string{t.unified}
	if t.unified == "" {
		dirs = nil
		for _, d := range t.dirs {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		groups, _ := os.ReadDir(d)
		for _, g := range groups {
			_ = unix.Rmdir(filepath.Join(d, g.Name())) // EBUSY: it runs; ENOTDIR: a file of the kernel's
		}
		_ = unix.Rmdir(d)               // ENOTEMPTY: others are still in it
		_ = unix.Rmdir(filepath.Dir(d)) // shared with other owners
	}
	return t.hidden.close()
}
