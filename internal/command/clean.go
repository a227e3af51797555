package command

import (
	"context"

	"minimega/internal/capture"
	"minimega/internal/vm"
)

// Cleaners returns what ends, after its VMs, with a namespace: captures,
// recordings, host taps and VLAN aliases.
func (d *Deps) Cleaners() []func(ctx context.Context, namespace string) error {
	return []func(context.Context, string) error{
		d.EndCaptures,
		func(_ context.Context, ns string) error { return d.Records.StopAll(ns) },
		d.ClearTaps,
		func(_ context.Context, ns string) error { d.VLANs.DeleteNamespace(ns); return nil },
	}
}

// Ended completes the recordings of a VM whose process has gone.
func (d *Deps) Ended(v *vm.VM) { d.Records.ForgetVM(v.ID) }

// Flushed completes the captures of a VM whose interfaces will go.
func (d *Deps) Flushed(ctx context.Context, v *vm.VM) error {
	return d.endCaptures(ctx, func(s capture.Spec) bool { return s.VM != "" && s.VMID == v.ID })
}
