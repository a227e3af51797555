package host

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// ListenerGone reports whether the process that listens at the other end of a
// connection has ended: what takes connections still is what it has left to a
// process that it was just starting.
func ListenerGone(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	pid := 0
	err = raw.Control(func(fd uintptr) {
		if who, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(who.Pid) // of who called listen(2); 0 in another pid namespace
		}
	})
	return err == nil && pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}
