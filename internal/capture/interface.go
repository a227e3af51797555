package capture

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// linkIndex is the index of a network interface.
func linkIndex(name string) (int, error) {
	req, err := askLink(name, unix.SIOCGIFINDEX)
	if err != nil {
		return 0, err
	}
	return int(int32(req.Uint32())), nil
}

// linkFlags are the flags of a network interface, see netdevice(7).
func linkFlags(name string) (uint16, error) {
	req, err := askLink(name, unix.SIOCGIFFLAGS)
	if err != nil {
		return 0, err
	}
	return req.Uint16(), nil
}

func askLink(name string, what uint) (*unix.Ifreq, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return nil, fmt.Errorf("interface name %q: %w", name, err)
	}
	if err := unix.IoctlIfreq(fd, what, req); err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return req, nil
}
