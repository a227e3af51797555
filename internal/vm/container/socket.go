package container

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// listener is a socket that listens and is waited for by a poller.
type listener struct {
	fd   int
	port int    // of TCP
	path string // in the file system, removed with it
}

const backlog = 16

func listen(family int, address unix.Sockaddr) (*listener, error) {
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if family == unix.AF_UNIX {
		err = unix.Fchmod(fd, 0o600) // the file that it gets: by its path, that might be another's by then
	}
	if err == nil {
		err = unix.Bind(fd, address)
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &listener{fd: fd}, nil
}

// maxSocketPath is what fits into struct sockaddr_un.
const maxSocketPath = 107

// listenUnix listens on a socket that only its owner can use, in the place of
// one of an earlier daemon. Paths that are too long for an address go by way
// of the directory's descriptor.
func listenUnix(path string) (*listener, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	name := path
	if len(path) > maxSocketPath {
		dir, err := os.Open(filepath.Dir(path))
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		name = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	}
	l, err := listen(unix.AF_UNIX, &unix.SockaddrUnix{Name: name})
	if err != nil {
		return nil, err
	}
	l.path = path
	return l, nil
}

// listenTCP listens on a free port of an address.
func listenTCP(host string) (*listener, error) {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return nil, err
	}
	var l *listener
	if addr = addr.Unmap(); addr.Is4() {
		l, err = listen(unix.AF_INET, &unix.SockaddrInet4{Addr: addr.As4()})
	} else {
		l, err = listen(unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()})
	}
	if err != nil {
		return nil, err
	}
	name, err := unix.Getsockname(l.fd)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		l.port = a.Port
	case *unix.SockaddrInet6:
		l.port = a.Port
	}
	return l, nil
}

// accept takes one connection, and does not wait for it.
func (l *listener) accept() (net.Conn, error) {
	fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "console client")
	defer f.Close() // FileConn has its own
	return net.FileConn(f)
}

// afterRefusal tells what to do after accept has failed: a process short of
// descriptors or memory takes clients again once it is not.
func afterRefusal(err error) answer {
	for _, e := range []error{unix.EAGAIN, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return goOn
		}
	}
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return later
		}
	}
	return end
}

// Close ends listening.
func (l *listener) Close() error {
	err := unix.Close(l.fd)
	if l.path != "" {
		err = errors.Join(err, os.RemoveAll(l.path))
	}
	return err
}
