package kvm

import (
	"context"
	"os"
	"slices"
	"strings"

	"minimega/internal/disk"
	"minimega/internal/errs"
)

// cdDrive is QEMU's name of the drive that every machine gets.
const cdDrive = "ide0-cd0"

// ChangeCD changes what is in the drive, see vm.CDChanger.
func (m *Machine) ChangeCD(ctx context.Context, image string, force bool) error {
	if image != "" {
		if st, err := os.Stat(image); err != nil {
			return errs.Wrap(errs.NotFound, err)
		} else if st.IsDir() {
			return errs.New(errs.Invalid, "cdrom %s is a directory", image)
		}
	}
	all, err := m.blockDevices(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(d blockDevice) bool { return d.Device == cdDrive })
	if i < 0 {
		return errs.New(errs.Unsupported, "the VM has no CD drive (%s)", cdDrive)
	}
	if image == "" || force {
		if err := m.eject(ctx, force); err != nil || image == "" {
			return err
		}
	}
	format := "raw"
	if h, err := disk.Inspect(image); err == nil && h.Format != format {
		if _, err := disk.Chain(image); err != nil {
			return err
		}
		format = h.Format
	}
	return m.unlocked(m.execute(ctx, "blockdev-change-medium", map[string]any{"device": cdDrive, "filename": image, "format": format}, nil))
}

func (m *Machine) eject(ctx context.Context, force bool) error {
	return m.unlocked(m.execute(ctx, "eject", map[string]any{"device": cdDrive, "force": force}, nil))
}

// unlocked says what to do about a drive that the guest has locked.
func (m *Machine) unlocked(err error) error {
	if err == nil || !strings.Contains(err.Error(), "locked") {
		return err
	}
	return errs.WithRemedy(err, "let the guest release the CD, or add `force`")
}
