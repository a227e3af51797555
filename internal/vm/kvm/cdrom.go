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
	if _, ok, err := m.cdInDrive(ctx); err != nil {
		return err
	} else if !ok {
		return errs.New(errs.Unsupported, "the VM has no CD drive (%s)", cdDrive)
	}
	if image == "" {
		return unlocked(m.eject(ctx, force))
	}
	// Only a drive that is locked is emptied first: an image that QEMU does not
	// take leaves the old one in.
	err := m.insert(ctx, image)
	if force && isLocked(err) {
		if err := m.eject(ctx, force); err != nil {
			return err
		}
		err = m.insert(ctx, image)
	}
	return unlocked(err)
}

func (m *Machine) insert(ctx context.Context, image string) error {
	format := "raw"
	if h, err := disk.Inspect(image); err == nil && h.Format != format {
		if _, err := disk.Chain(image); err != nil {
			return err
		}
		format = h.Format
	}
	return m.execute(ctx, "blockdev-change-medium", map[string]any{"device": cdDrive, "filename": image, "format": format}, nil)
}

func (m *Machine) eject(ctx context.Context, force bool) error {
	return m.execute(ctx, "eject", map[string]any{"device": cdDrive, "force": force}, nil)
}

// cdInDrive returns the image in the drive, "" for none, and whether there is
// a drive.
func (m *Machine) cdInDrive(ctx context.Context) (image string, ok bool, err error) {
	all, err := m.blockDevices(ctx)
	i := slices.IndexFunc(all, func(d blockDevice) bool { return d.Device == cdDrive })
	if err != nil || i < 0 {
		return "", false, err
	}
	if all[i].Inserted != nil {
		image = all[i].Inserted.File
	}
	return image, true, nil
}

func isLocked(err error) bool { return err != nil && strings.Contains(err.Error(), "locked") }

// unlocked says what to do about a drive that the guest has locked.
func unlocked(err error) error {
	if !isLocked(err) {
		return err
	}
	return errs.WithRemedy(err, "let the guest release the CD, or add `force`")
}
