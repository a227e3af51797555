package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"minimega/internal/guest/initrd"
)

// drivers loads kernel modules for the devices that are there, as the initrd's
// list says, and for those that are plugged in later.
type drivers struct {
	mu   sync.Mutex
	left []driver // not loaded yet
}

type driver struct {
	files    []string
	patterns []string // none: for every machine
	late     bool
}

func readDrivers() (*drivers, error) {
	list, err := os.ReadFile(initrd.LoadList)
	if os.IsNotExist(err) {
		return &drivers{}, nil
	}
	return &drivers{left: parseDrivers(string(list))}, err
}

func parseDrivers(list string) []driver {
	var all []driver
	for _, line := range strings.Split(list, "\n") {
		var d driver
		for _, f := range strings.Fields(line) {
			switch {
			case f[0] == '/':
				d.files = append(d.files, f)
			case f == initrd.Late:
				d.late = true
			default:
				d.patterns = append(d.patterns, f)
			}
		}
		if d.files != nil {
			all = append(all, d)
		}
	}
	return all
}

// load loads what the devices need, again as long as that brings up new ones:
// a bus has to be driven before the devices on it are seen. The late ones are
// left for later if so asked.
func (d *drivers) load(late bool) []error {
	var bad []error
	for {
		devices := listDevices()
		loaded, failed := d.loadFor(devices, late)
		bad = append(bad, failed...)
		if loaded == 0 {
			return bad
		}
	}
}

// loadFor loads what is for one of the devices, or for every machine.
func (d *drivers) loadFor(devices []string, late bool) (loaded int, bad []error) {
	d.mu.Lock()
	var todo, left []driver
	for _, m := range d.left {
		if (late || !m.late) && m.wanted(devices) {
			todo = append(todo, m)
		} else {
			left = append(left, m)
		}
	}
	d.left = left
	d.mu.Unlock()
	for _, m := range todo {
		for _, file := range m.files {
			if err := loadModule(file); err != nil {
				bad = append(bad, err)
			}
		}
	}
	return len(todo), bad
}

func (m driver) wanted(devices []string) bool {
	for _, p := range m.patterns {
		for _, d := range devices {
			if ok, err := path.Match(p, d); ok && err == nil { // a bad pattern matches nothing
				return true
			}
		}
	}
	return m.patterns == nil
}

// listDevices returns what the devices say of themselves, to be matched with
// the patterns of drivers.
func listDevices() []string {
	var list []string
	for _, pattern := range []string{"/sys/bus/*/devices/*/modalias", "/sys/class/input/*/modalias"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			continue // only for a bad pattern
		}
		for _, f := range files {
			if data, err := os.ReadFile(f); err == nil { // else unplugged
				list = append(list, strings.TrimSpace(string(data)))
			}
		}
	}
	return list
}

// loadModule loads one file. A driver that finds no device is no error, nor is
// one that is loaded or built in already.
func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("load module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("load module %s: %w", file, err)
	}
	return nil
}

// watchDevices loads drivers for what is plugged in, as the kernel tells
// (NETLINK_KOBJECT_UEVENT: strings KEY=VALUE, each ended by a zero byte).
func (m *Machine) watchDevices(ctx context.Context) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	f := os.NewFile(uintptr(fd), "uevent") // non-blocking, so Close wakes Read
	defer f.Close()
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { f.Close() })
	defer stop()
	m.logAll(m.drivers.load(true)) // what came before we listened
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		if errors.Is(err, unix.ENOBUFS) { // some were lost
			m.logAll(m.drivers.load(true))
			continue
		}
		if err != nil {
			return fmt.Errorf("watch devices: %w", err)
		}
		if alias := addedDevice(string(buf[:n])); alias != "" {
			_, bad := m.drivers.loadFor([]string{alias}, true)
			m.logAll(bad)
		}
	}
}

// addedDevice returns the MODALIAS of an event that adds a device, or "".
func addedDevice(event string) string {
	add, alias := false, ""
	for _, s := range strings.Split(event, "\x00") {
		if s == "ACTION=add" {
			add = true
		}
		if a, ok := strings.CutPrefix(s, "MODALIAS="); ok {
			alias = a
		}
	}
	if !add {
		return ""
	}
	return alias
}
