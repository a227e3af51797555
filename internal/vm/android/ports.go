package android

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"iter"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"minimega/internal/errs"
)

// The emulator's console listens on an even port, adb on the next. The range
// is the one in which adb finds emulators, and bounds how many a host has.
const (
	firstPort  = 5554
	lastPort   = 5680
	maxPerHost = (lastPort-firstPort)/2 + 1
)

func itoa(n int) string { return strconv.Itoa(n) }

// candidates yields the console ports to try, from base up, 0 for the first.
func candidates(base uint64) iter.Seq[int] {
	from := firstPort
	if base != 0 {
		from = int(base)
	}
	return func(yield func(int) bool) {
		for port := from; port <= lastPort; port += 2 {
			if !yield(port) {
				return
			}
		}
	}
}

func noPorts(base uint64) error {
	if base > firstPort {
		return errs.WithRemedy(errs.New(errs.Resource, "every pair of Android ports from %d to %d is taken", base, lastPort+1),
			"set `vm config android-console-base-port 0`")
	}
	return errs.New(errs.Resource, "all %d pairs of Android ports, %d to %d, are taken: a host has no more emulators", maxPerHost, firstPort, lastPort+1)
}

// claim is a pair of ports that no other engine takes while it is held.
type claim struct {
	port int // of the console
	lock io.Closer
}

func (c *claim) release() { _ = c.lock.Close() } // of a name, which cannot fail

// claimPorts takes the first free pair. The claim, a name in the same network
// namespace as the ports, holds off other engines, also those of another
// minimega, until an emulator listens and holds off everybody.
func claimPorts(base uint64) (*claim, error) {
	taken, err := listening()
	if err != nil {
		return nil, err
	}
	for port := range candidates(base) {
		if taken[port] || taken[port+1] {
			continue
		}
		c, err := claimPort(port)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, err
		}
		// Whoever had the claim until now may listen by now.
		if taken, err = listening(); err == nil && !taken[port] && !taken[port+1] {
			return c, nil
		}
		if c.release(); err != nil {
			return nil, err
		}
	}
	return nil, noPorts(base)
}

// claimPort claims a pair that may be in use.
func claimPort(port int) (*claim, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@minimega/android/" + itoa(port), Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &claim{port: port, lock: l}, nil
}

// listening returns the TCP ports on which somebody listens, in this network
// namespace.
func listening() (map[int]bool, error) {
	ports := map[int]bool{}
	for _, name := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		addListening(ports, b)
	}
	return ports, nil
}

// addListening reads a table of sockets: "sl local rem st …" with addresses as
// hexadecimal address:port (Linux, Documentation/networking/proc_net_tcp.rst).
func addListening(ports map[int]bool, table []byte) {
	const listen = "0A"
	for s := bufio.NewScanner(bytes.NewReader(table)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 4 || f[3] != listen {
			continue
		}
		_, hex, _ := strings.Cut(f[1], ":")
		if port, err := strconv.ParseUint(hex, 16, 16); err == nil {
			ports[int(port)] = true
		}
	}
}
