package meshage

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// sameOwner says whether the process at the other end of a connection within
// this host belongs to this process's user or to root. Without a key that is
// all that keeps other users of the host from giving orders to this daemon.
func sameOwner(c net.Conn) error {
	if _, ok := c.(*net.TCPConn); !ok {
		return nil // a network inside this process
	}
	// The other end's socket has this connection's addresses the other way round.
	uid, err := socketOwner(addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()))
	if err != nil {
		return fmt.Errorf("find out whose the other end is: %w", err)
	}
	if uid != 0 && uid != os.Geteuid() {
		return errOtherOwner
	}
	return nil
}

// socketOwner finds the user of a TCP socket of this host in /proc/net/tcp and
// tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
func socketOwner(local, remote netip.AddrPort) (int, error) {
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil {
			continue
		}
		uid, ok := findSocket(f, local, remote)
		_ = f.Close()
		if ok {
			return uid, nil
		}
	}
	return 0, fmt.Errorf("no socket %s to %s on this host", local, remote)
}

// findSocket searches a table of sockets.
func findSocket(table io.Reader, local, remote netip.AddrPort) (uid int, ok bool) {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 8 {
			continue
		}
		if l, ok := parseSocket(f[1]); !ok || l != local {
			continue
		}
		if r, ok := parseSocket(f[2]); !ok || r != remote {
			continue
		}
		if uid, err := strconv.Atoi(f[7]); err == nil {
			return uid, true
		}
	}
	return 0, false
}

// parseSocket reads "0100007F:1F90": 32-bit words of the address in the host's
// (little-endian) order, and the port.
func parseSocket(text string) (netip.AddrPort, bool) {
	address, portText, found := strings.Cut(text, ":")
	if !found {
		return netip.AddrPort{}, false
	}
	port, err := strconv.ParseUint(portText, 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	b, err := hex.DecodeString(address)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	ip, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(port)), ok
}
