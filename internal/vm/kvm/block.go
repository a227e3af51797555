package kvm

import (
	"context"

	"golang.org/x/sys/unix"
)

// blockDevice is an element of query-block (QEMU's qapi/block-core.json).
type blockDevice struct {
	Device   string `json:"device"`
	Locked   bool   `json:"locked"`
	Inserted *struct {
		File   string `json:"file"`
		Format string `json:"drv"`
	} `json:"inserted"`
}

// blockDevices asks QEMU for its drives.
func (m *Machine) blockDevices(ctx context.Context) ([]blockDevice, error) {
	var all []blockDevice
	err := m.execute(ctx, "query-block", nil, &all)
	return all, err
}

// deviceOf finds the drive of a file.
func deviceOf(all []blockDevice, file string) (blockDevice, bool) {
	for _, d := range all {
		if d.Inserted != nil && d.Inserted.File == file {
			return d, true
		}
	}
	return blockDevice{}, false
}

// Ids of devices that were plugged in; a number follows.
const (
	hotDiskID = "hotplug"
	hotNetID  = "hotnet"
)

// peripherals lists the ids of devices that have one.
func (m *Machine) peripherals(ctx context.Context) ([]string, error) {
	var items []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	}
	if err := m.execute(ctx, "qom-list", map[string]any{"path": "/machine/peripheral"}, &items); err != nil {
		return nil, err
	}
	var ids []string
	for _, i := range items {
		if i.Name != "type" {
			ids = append(ids, i.Name)
		}
	}
	return ids, nil
}

// freeSpace returns how many bytes fit beside a file, -1 if unknown.
func freeSpace(path string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * st.Bsize
}
