package optimize

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// pin is a VM's process. It may use cpus, while affinity is on.
type pin struct {
	want int // how many processors it can use
	cpus []int
}

// CPU is a processor and who is pinned to it.
type CPU struct {
	CPU  int
	Pids []int
}

// Affinity reports whether VMs are pinned.
func (o *Optimizer) Affinity() bool { return o.read().Affinity }

// CPUs lists the processors that VMs may be pinned to, with who is.
func (o *Optimizer) CPUs() ([]CPU, error) {
	free, err := allowed()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []CPU
	for _, n := range o.usableLocked(free) {
		c := CPU{CPU: n}
		for _, pid := range slices.Sorted(maps.Keys(o.pinned)) {
			if slices.Contains(o.pinned[pid].cpus, n) {
				c.Pids = append(c.Pids, pid)
			}
		}
		list = append(list, c)
	}
	return list, nil
}

// SetAffinity pins each VM to the processors with the fewest VMs, as many as
// it has virtual ones, or lets all VMs run everywhere again.
func (o *Optimizer) SetAffinity(on bool) error {
	return o.change(func(s *state) error { s.Affinity = on; return nil })
}

// SetFilter pins VMs only to the processors given, nil for any.
func (o *Optimizer) SetFilter(cpus []int) error {
	return o.change(func(s *state) error {
		free, err := allowed()
		if err != nil {
			return err
		}
		if cpus != nil && !slices.ContainsFunc(cpus, func(n int) bool { return slices.Contains(free, n) }) {
			return errs.New(errs.Invalid, "cannot expand CPU range: none of these processors is here (%d to %d are)", free[0], free[len(free)-1])
		}
		s.Filter = slices.Clone(cpus)
		return nil
	})
}

// change edits the state and pins all VMs anew.
func (o *Optimizer) change(edit func(*state) error) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	was := o.read()
	s := was
	if err := edit(&s); err != nil {
		return err
	}
	if err := o.write(s); err != nil {
		return err
	}
	if !was.Affinity && !s.Affinity {
		return nil
	}
	o.mu.Lock()
	pids := slices.Sorted(maps.Keys(o.pinned))
	for _, p := range o.pinned {
		p.cpus = nil
	}
	o.mu.Unlock()
	var failed []error
	for _, pid := range pids {
		failed = append(failed, o.place(pid))
	}
	return errs.Join(failed...)
}

// Started tells of a VM's process and how many virtual processors it has.
func (o *Optimizer) Started(pid, vcpus int) {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	o.mu.Lock()
	o.pinned[pid] = &pin{want: max(1, vcpus)}
	on := o.state.Affinity
	o.mu.Unlock()
	if !on {
		return
	}
	if err := o.place(pid); err != nil {
		o.opts.Log.Warn("pinning a VM", "pid", pid, "err", err)
	}
}

// Ended tells that the process has gone.
func (o *Optimizer) Ended(pid int) { o.mu.Lock(); delete(o.pinned, pid); o.mu.Unlock() }

// place puts a process where it belongs now. The caller has the turn.
func (o *Optimizer) place(pid int) error {
	free, err := allowed()
	if err != nil {
		return err
	}
	o.mu.Lock()
	p := o.pinned[pid]
	cpus := free
	if p != nil && o.state.Affinity {
		cpus = o.leastUsedLocked(o.usableLocked(free), p.want)
		p.cpus = cpus
	}
	o.mu.Unlock()
	if p == nil {
		return nil // ended meanwhile
	}
	return setAffinity(pid, cpus)
}

// usableLocked applies the filter. The caller holds mu.
func (o *Optimizer) usableLocked(free []int) []int {
	if o.state.Filter == nil {
		return free
	}
	return slices.DeleteFunc(slices.Clone(free), func(n int) bool { return !slices.Contains(o.state.Filter, n) })
}

// leastUsedLocked picks want processors. The caller holds mu.
func (o *Optimizer) leastUsedLocked(usable []int, want int) []int {
	used := map[int]int{}
	for _, p := range o.pinned {
		for _, n := range p.cpus {
			used[n]++
		}
	}
	usable = slices.Clone(usable)
	slices.SortStableFunc(usable, func(a, b int) int { return cmp.Compare(used[a], used[b]) })
	return usable[:min(want, len(usable))]
}

// allowed lists the processors that this process may use, and so what it
// starts when nobody says otherwise.
func allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, err
	}
	var list []int
	for n := range len(set) * 64 {
		if set.IsSet(n) {
			list = append(list, n)
		}
	}
	return list, nil
}

// setAffinity pins all threads of a process. Threads that it makes meanwhile
// have the processors of their maker, so it takes until no new one is found.
func setAffinity(pid int, cpus []int) error {
	var set unix.CPUSet
	for _, n := range cpus {
		set.Set(n)
	}
	done := map[string]bool{}
	for more := true; more; {
		more = false
		threads, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
		if errors.Is(err, os.ErrNotExist) {
			return nil // ended
		}
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[t.Name()] {
				continue
			}
			done[t.Name()], more = true, true
			if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
				return errs.New(errs.Permission, "cannot pin thread %d of process %d: %w", tid, pid, err)
			}
		}
	}
	return nil
}
