package linux

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// space is a network namespace, and a socket in it for questions about its
// devices. What depends on the namespace of the calling thread (taps, files
// under /proc/sys/net, new sockets) is done with in.
type space struct {
	ns     netns.NsHandle
	socket int
}

// here returns the namespace of the calling thread.
func here() (*space, error) {
	ns, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("cannot open the network namespace: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		ns.Close()
		return nil, fmt.Errorf("cannot open a socket: %w", err)
	}
	return &space{ns: ns, socket: fd}, nil
}

func (s *space) close() {
	s.ns.Close()
	unix.Close(s.socket)
}

// in runs f on a thread that is in the namespace.
func (s *space) in(f func() error) error {
	runtime.LockOSThread()
	was, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot open the network namespace: %w", err)
	}
	defer was.Close()
	if was.Equal(s.ns) {
		defer runtime.UnlockOSThread()
		return f()
	}
	if err := netns.Set(s.ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("cannot enter the network namespace: %w", err)
	}
	defer func() {
		// A thread that cannot go back must not serve others: staying locked,
		// it ends with its goroutine.
		if netns.Set(was) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// index returns the index of a device.
func (s *space) index(name string) (int, error) {
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s.socket, unix.SIOCGIFINDEX, req)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot find interface %s: %w", name, err)
	}
	return int(req.Uint32()), nil
}

func (s *space) exists(name string) bool {
	_, err := s.index(name)
	return err == nil
}

// has reports whether there is a device of this index (netdevice(7)).
func (s *space) has(index int) bool {
	req, err := unix.NewIfreq("")
	if err != nil {
		return false
	}
	req.SetUint32(uint32(index))
	return unix.IoctlIfreq(s.socket, unix.SIOCGIFNAME, req) == nil
}

// device returns index and MTU of a device.
func (s *space) device(name string) (index, mtu int, err error) {
	if index, err = s.index(name); err != nil {
		return 0, 0, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(s.socket, unix.SIOCGIFMTU, req)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("cannot read the MTU of %s: %w", name, err)
	}
	return index, int(req.Uint32()), nil
}

// driver returns the name of the driver of a device. The error is ENODEV if
// there is none of that name, EOPNOTSUPP for drivers that do not tell.
func (s *space) driver(name string) (string, error) {
	info, err := unix.IoctlGetEthtoolDrvinfo(s.socket, name)
	if err != nil {
		return "", fmt.Errorf("cannot look at interface %s: %w", name, err)
	}
	return unix.ByteSliceToString(info.Driver[:]), nil
}
