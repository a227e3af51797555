package container

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// terminal is a container's own instance of devpts, with the console as its
// first terminal.
type terminal struct {
	mount  *os.File // nowhere attached yet
	master *os.File // non-blocking
	slave  *os.File
}

// newTerminal makes the file system, for a root who is first on the host,
// without mounting it anywhere.
func newTerminal(first uint32) (*terminal, error) {
	options := [][2]string{{"ptmxmode", "666"}, {"mode", "620"}}
	mount, err := newDevpts(append(options, [2]string{"uid", decimal(first)}, [2]string{"gid", decimal(first + 5)}))
	if errors.Is(err, unix.EINVAL) && first == 0 {
		mount, err = newDevpts(options) // no such group in our user namespace
	}
	if err != nil {
		return nil, err
	}
	t := &terminal{mount: os.NewFile(uintptr(mount), "devpts")}
	if err := t.open(mount); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

// newDevpts makes an instance of the file system: see fsopen(2) and the kernel's
// Documentation/filesystems/devpts.rst.
func newDevpts(options [][2]string) (mount int, err error) {
	fd, err := unix.Fsopen("devpts", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("devpts: %w", err)
	}
	defer unix.Close(fd)
	for _, o := range options {
		if err := unix.FsconfigSetString(fd, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("devpts %s: %w", o[0], err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil { // older kernels look at the options only now
		return -1, fmt.Errorf("devpts: %w", err)
	}
	mount, err = unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("devpts: %w", err)
	}
	return mount, nil
}

func (t *terminal) open(mount int) error {
	master, err := unix.Openat(mount, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	t.master = os.NewFile(uintptr(master), "terminal")
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return fmt.Errorf("unlock terminal: %w", err)
	}
	slave, err := unix.Openat(mount, "0", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open terminal: %w", err)
	}
	t.slave = os.NewFile(uintptr(slave), "terminal")
	return nil
}

// closeRest closes all but the master.
func (t *terminal) closeRest() error {
	var failed []error
	for _, f := range []*os.File{t.mount, t.slave} {
		if f != nil {
			failed = append(failed, f.Close())
		}
	}
	t.mount, t.slave = nil, nil
	return errors.Join(failed...)
}

// Close closes everything.
func (t *terminal) Close() error {
	err := t.closeRest()
	if t.master != nil {
		err = errors.Join(err, t.master.Close())
	}
	return err
}
