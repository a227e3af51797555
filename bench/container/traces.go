package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"minimega/bench/figure"
)

// traces is what containers could leave on a host.
type traces struct {
	links, mounts, groups, files int
	daemon                       float64 // MiB
}

func look(d *figure.Daemon) (t traces, err error) {
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return t, err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return t, err
	}
	t.links, t.mounts = len(links), strings.Count(string(mounts), "\n")
	err = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(path, "/minimega/") {
			t.groups++
		}
		return nil // groups come and go while this looks
	})
	if err != nil {
		return t, err
	}
	if t.files, err = d.Files(); err != nil {
		return t, err
	}
	t.daemon, err = d.RSS()
	return t, err
}

// settled looks once what is removed in the background has gone: interfaces go
// with a network namespace, which the kernel ends in its own time.
func settled(d *figure.Daemon) (t traces, err error) {
	for range 40 {
		was := t.links
		time.Sleep(500 * time.Millisecond)
		if t, err = look(d); err != nil || t.links == was {
			break
		}
	}
	return t, err
}

func (t traces) minus(o traces) string {
	return fmt.Sprintf("%d links, %d mounts, %d groups, %d files, %.1f MiB",
		t.links-o.links, t.mounts-o.mounts, t.groups-o.groups, t.files-o.files, t.daemon-o.daemon)
}

// available is the memory that the host has left, in KiB.
func available() float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "MemAvailable: %f kB", &kib); err == nil {
			return kib
		}
	}
	panic("no MemAvailable in /proc/meminfo")
}
