package kvm

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"minimega/internal/qmp"
	"minimega/internal/vm"
)

// AddNet plugs a network interface in, see vm.NetAdder.
func (m *Machine) AddNet(ctx context.Context, n vm.NetConfig) error {
	err := m.addNetdev(ctx, n)
	if err == nil {
		err = m.addNIC(ctx, n)
	}
	if err != nil && m.alive() == nil {
		_, undone := m.SettleNet(context.WithoutCancel(ctx), n)
		err = errors.Join(err, undone)
	}
	return err
}

// addNetdev opens the tap, and addNIC makes the device of the guest.
func (m *Machine) addNetdev(ctx context.Context, n vm.NetConfig) error {
	return m.execute(ctx, "netdev_add", map[string]any{"type": "tap", "id": n.Tap, "ifname": n.Tap, "script": "no", "downscript": "no"}, nil)
}

func (m *Machine) addNIC(ctx context.Context, n vm.NetConfig) error {
	return m.execute(ctx, "device_add", map[string]any{"driver": cmp.Or(n.Driver, vm.DefaultDriver), "id": nicID(n),
		"netdev": n.Tap, "mac": n.MAC, "bus": "pci.0"}, nil)
}

func nicID(n vm.NetConfig) string { return hotNetID + "-" + n.Tap }

// SettleNet tells what came of an AddNet, see vm.NetAdder. A device that is
// there stays: its guest would have to agree to its end.
func (m *Machine) SettleNet(ctx context.Context, n vm.NetConfig) (bool, error) {
	ids, err := m.peripherals(ctx)
	if err != nil || slices.Contains(ids, nicID(n)) {
		return err == nil, err
	}
	err = m.execute(ctx, "netdev_del", map[string]any{"id": n.Tap}, nil)
	var refused *qmp.Error
	if errors.As(err, &refused) {
		err = nil // it is not there either
	}
	return false, err
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
