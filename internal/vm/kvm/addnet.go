package kvm

import (
	"cmp"
	"context"
	"errors"

	"minimega/internal/vm"
)

// AddNet plugs a network interface in, see vm.NetAdder.
func (m *Machine) AddNet(ctx context.Context, n vm.NetConfig) error {
	err := m.execute(ctx, "netdev_add", map[string]any{"type": "tap", "id": n.Tap, "ifname": n.Tap, "script": "no", "downscript": "no"}, nil)
	if err != nil {
		return err
	}
	err = m.execute(ctx, "device_add", map[string]any{"driver": cmp.Or(n.Driver, vm.DefaultDriver), "id": hotNetID + "-" + n.Tap,
		"netdev": n.Tap, "mac": n.MAC, "bus": "pci.0"}, nil)
	if err != nil {
		return errors.Join(err, m.execute(context.WithoutCancel(ctx), "netdev_del", map[string]any{"id": n.Tap}, nil))
	}
	return nil
}

// VCPUThreads lists the threads that run the guest's processors.
func (m *Machine) VCPUThreads(ctx context.Context) ([]int, error) {
	var cpus []struct {
		Thread int `json:"thread-id"`
	}
	if err := m.execute(ctx, "query-cpus-fast", nil, &cpus); err != nil {
		return nil, err
	}
	threads := make([]int, len(cpus))
	for i, c := range cpus {
		threads[i] = c.Thread
	}
	return threads, nil
}
