package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process and its descendants take of the machine.
type Usage struct {
	Virtual, Resident, Shared int64         // bytes
	CPU                       time.Duration // since their start
	Threads                   time.Duration // of the threads asked for, since their start
	Procs                     int           // how many processes were counted
}

// maxProcs bounds how many processes of a tree are looked at.
const maxProcs = 100

// tickLength is the unit of times in /proc (USER_HZ, 100 per second on Linux;
// see proc(5)).
const tickLength = 10 * time.Millisecond

// ProcessUsage reads what the tree under pid takes, and what the threads given
// (of pid itself) take of it. What ends meanwhile is left out; that pid itself
// is gone is an error.
func ProcessUsage(pid int, threads []int) (Usage, error) {
	var u Usage
	for _, t := range threads { // first, as they go on: they are a part of what is read later
		if d, err := cpuTime(fmt.Sprintf("/proc/%d/task/%d/stat", pid, t)); err == nil {
			u.Threads += d
		}
	}
	if err := u.add(pid); err != nil {
		return u, err
	}
	for todo := children(pid); len(todo) > 0 && u.Procs < maxProcs; todo = todo[1:] {
		if u.add(todo[0]) == nil { // else it has ended
			todo = append(todo, children(todo[0])...)
		}
	}
	return u, nil
}

func (u *Usage) add(pid int) error {
	d, err := cpuTime(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return err
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return err
	}
	f := strings.Fields(string(b))
	if len(f) < 3 {
		return errors.New("unexpected content of statm")
	}
	for i, to := range []*int64{&u.Virtual, &u.Resident, &u.Shared} {
		pages, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return err
		}
		*to += pages * int64(os.Getpagesize())
	}
	u.CPU += d
	u.Procs++
	return nil
}

// cpuTime reads user and system time from a stat file.
func cpuTime(path string) (time.Duration, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return parseCPUTime(b)
}

// parseCPUTime finds fields 14 and 15 of proc_pid_stat(5). The name, field 2,
// may hold anything, but no later field holds a parenthesis.
func parseCPUTime(b []byte) (time.Duration, error) {
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, errors.New("unexpected content of stat")
	}
	user, err := strconv.ParseInt(f[11], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * tickLength, err
}

// children lists the direct children of a process.
func children(pid int) []int {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	var pids []int
	for _, path := range lists {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, w := range strings.Fields(string(b)) {
			if p, err := strconv.Atoi(w); err == nil {
				pids = append(pids, p)
			}
		}
	}
	return pids
}
