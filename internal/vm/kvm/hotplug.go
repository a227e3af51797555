package kvm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"minimega/internal/disk"
	"minimega/internal/errs"
	"minimega/internal/host"
	"minimega/internal/vm"
)

const (
	// pluggedName is the file in the instance directory that lists USB disks.
	pluggedName = "hotplug"
	// unplugTime is how long a device may take to go.
	unplugTime = 5 * time.Second
)

// HotplugAdd plugs a USB disk in, see vm.Hotplugger.
func (m *Machine) HotplugAdd(ctx context.Context, image, version, serial string) error {
	bus, err := m.usbBus(version)
	if err != nil {
		return err
	}
	if _, err := disk.Chain(image); err != nil {
		return err
	}
	if err := disk.Free(image, true); err != nil {
		return err
	}
	// The note comes first: a daemon that dies in between leaves no drive that
	// the next one does not know.
	n := m.freeNumber()
	err = m.notePlugged(func(all map[int]vm.HotplugDisk) { all[n] = vm.HotplugDisk{ID: n, File: image, Version: version} })
	if err == nil {
		err = m.plug(ctx, n, image, bus, serial)
	}
	if err != nil {
		err = errors.Join(err, m.forgetPlugged(n))
	}
	return err
}

// plug makes the drive and the device of a number.
func (m *Machine) plug(ctx context.Context, n int, image, bus, serial string) error {
	id := hotDiskID + strconv.Itoa(n)
	if err := m.addDrive(ctx, id, image); err != nil {
		return err
	}
	device := map[string]any{"driver": "usb-storage", "id": id, "drive": id, "bus": bus}
	if serial != "" {
		device["serial"] = serial
	}
	if err := m.execute(ctx, "device_add", device, nil); err != nil {
		_, _ = m.monitor(context.WithoutCancel(ctx), "drive_del "+id) // it may have gone with the device
		return err
	}
	return nil
}

// addDrive opens an image. The drive that had the number before may live for a
// moment after its device has gone.
func (m *Machine) addDrive(ctx context.Context, id, image string) error {
	patience, cancel := context.WithTimeout(ctx, unplugTime)
	defer cancel()
	for wait := askFirst; ; wait = min(wait*3/2, askLast) {
		// Without a format QEMU keeps a guest from turning a raw disk into another.
		said, err := m.monitor(ctx, fmt.Sprintf("drive_add 0 %s", hmpQuote(fmt.Sprintf("id=%s,if=none,file=%s", id, opt(image)))))
		if err != nil {
			return err
		}
		if said == "OK" {
			return nil
		}
		if !strings.Contains(said, "Duplicate ID") || pause(patience, wait, m.done) != nil {
			return errs.New(errs.State, "QEMU does not open %s: %s", image, said)
		}
	}
}

// usbBus returns the bus of a USB version.
func (m *Machine) usbBus(version string) (string, error) {
	switch {
	case version == "" || version == "1.1":
		return "usb-bus.0", nil
	case version == "2.0" && !m.xhci:
		return "ehci.0", nil
	case version == "2.0" || version == "3.0" && m.xhci:
		return "xhci.0", nil
	case version == "3.0":
		return "", errs.WithRemedy(errs.New(errs.Unsupported, "the VM has no USB 3 controller"), "launch it with `vm config usb-use-xhci true`")
	}
	return "", errs.WithRemedy(errs.New(errs.Invalid, "invalid version: `%s`", version), "use 1.1, 2.0 or 3.0")
}

// HotplugRemove pulls a disk out.
func (m *Machine) HotplugRemove(ctx context.Context, n int) error {
	m.mu.Lock()
	_, ok := m.plugged[n]
	m.mu.Unlock()
	if !ok {
		return errs.New(errs.NotFound, "no such hotplug device")
	}
	id := hotDiskID + strconv.Itoa(n)
	if err := m.execute(ctx, "device_del", map[string]any{"id": id}, nil); err != nil {
		return err
	}
	if err := m.gone(ctx, id); err != nil {
		return err
	}
	_, _ = m.monitor(ctx, "drive_del "+id) // it may have gone with the device
	return m.forgetPlugged(n)
}

// gone waits until QEMU has no device of that id any more.
func (m *Machine) gone(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, unplugTime)
	defer cancel()
	for wait := askFirst; ; wait = min(wait*3/2, askLast) {
		ids, err := m.peripherals(ctx)
		if err != nil {
			return err
		}
		if !slices.Contains(ids, id) {
			return nil
		}
		if err := pause(ctx, wait, m.done); err != nil {
			return errs.New(errs.State, "device %s does not go: %w", id, err)
		}
	}
}

// Hotplugged lists the disks that are plugged in.
func (m *Machine) Hotplugged() []vm.HotplugDisk {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.plugged), func(a, b vm.HotplugDisk) int { return cmp.Compare(a.ID, b.ID) })
}

func (m *Machine) freeNumber() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := 0; ; n++ {
		if _, taken := m.plugged[n]; !taken {
			return n
		}
	}
}

// notePlugged changes the list, and its copy for the next daemon.
func (m *Machine) notePlugged(change func(map[int]vm.HotplugDisk)) error {
	m.mu.Lock()
	if m.plugged == nil {
		m.plugged = map[int]vm.HotplugDisk{}
	}
	change(m.plugged)
	m.mu.Unlock()
	b, err := json.Marshal(m.Hotplugged())
	if err == nil {
		err = host.WriteFile(filepath.Join(m.dir, pluggedName), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note the USB disks: %w", err)
	}
	return nil
}

func (m *Machine) forgetPlugged(n int) error {
	return m.notePlugged(func(all map[int]vm.HotplugDisk) { delete(all, n) })
}

// readPlugged finds the disks that an adopted machine has. A drive that was
// noted and has no device is removed: its number could not be used again.
func (m *Machine) readPlugged(ctx context.Context) {
	b, err := os.ReadFile(filepath.Join(m.dir, pluggedName))
	if err != nil {
		return // the usual case: there are none
	}
	var noted []vm.HotplugDisk
	if err := json.Unmarshal(b, &noted); err != nil {
		m.log.Warn("unreadable list of USB disks", "vm", m.name, "err", err)
		return
	}
	ids, err := m.peripherals(ctx)
	if err != nil {
		m.log.Warn("asking for USB disks", "vm", m.name, "err", err)
		return
	}
	kept := map[int]vm.HotplugDisk{}
	for _, d := range noted {
		if id := hotDiskID + strconv.Itoa(d.ID); slices.Contains(ids, id) {
			kept[d.ID] = d
		} else {
			_, _ = m.monitor(ctx, "drive_del "+id) // there may be none
		}
	}
	if err := m.notePlugged(func(all map[int]vm.HotplugDisk) { maps.Copy(all, kept) }); err != nil {
		m.log.Warn("taking over the USB disks", "vm", m.name, "err", err)
	}
}

// monitor runs a command of the human monitor, for what QMP lacks, and returns
// what it prints.
func (m *Machine) monitor(ctx context.Context, line string) (string, error) {
	var said string
	err := m.execute(ctx, "human-monitor-command", map[string]any{"command-line": line}, &said)
	return clean(said), err
}

// hmpQuote makes one word of the human monitor's language (QEMU's
// monitor/hmp.c, get_str).
func hmpQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`).Replace(s) + `"`
}
