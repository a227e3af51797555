package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

const (
	backchannelName = "cc" // in the root of the container
	// backchannelMost is how many connections a container may have at once: it
	// must not use up the descriptors of this process. Others are closed.
	backchannelMost = 16
)

// backchannel listens for the agent in a container. The keeper holds the
// socket, too: connections wait in it while no daemon runs.
type backchannel struct {
	file   *os.File
	raw    syscall.RawConn
	path   string // "" for one that was there before us
	spec   *vm.Spec
	handle func(context.Context, *vm.Spec, net.Conn)
	lack   *shortage
	log    *slog.Logger
	remove func() // from the poller
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // of handle

	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]bool
	closed bool
}

// listenBackchannel makes the socket in a directory that may be a stranger's: a
// link of that name is not followed, and what is no socket is not replaced.
func listenBackchannel(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	err = unix.Fstatat(fd, backchannelName, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return nil, errs.WithRemedy(errs.New(errs.Exists, "%s is there already, and is no socket", filepath.Join(dir, backchannelName)),
			"remove it, or set `vm config backchannel false`, or `vm config snapshot true`")
	case err == nil: // of a container that had this file system before
		err = unix.Unlinkat(fd, backchannelName, 0)
	case errors.Is(err, unix.ENOENT):
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", backchannelName, dir, err)
	}
	l, err := listen(unix.AF_UNIX, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, backchannelName)})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", filepath.Join(dir, backchannelName), err)
	}
	return os.NewFile(uintptr(l.fd), backchannelName), nil
}

// isListener reports whether a descriptor is a unix socket that listens.
func isListener(file *os.File) bool {
	domain, listens := 0, 0
	raw, err := file.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		domain, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		listens, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	})
	return err == nil && domain == unix.AF_UNIX && listens == 1
}

// serveBackchannel passes connections on until Close, which closes file.
func serveBackchannel(p *poller, file *os.File, path string, s *vm.Spec, handle func(context.Context, *vm.Spec, net.Conn)) (*backchannel, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := &backchannel{file: file, raw: raw, path: path, spec: s, handle: handle, lack: &p.lack, log: s.Log, conns: map[net.Conn]bool{}}
	if b.handle == nil {
		b.handle = b.nobody
	}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	if e := raw.Control(func(fd uintptr) { b.remove, err = p.add(int(fd), b.accept) }); e != nil {
		err = e
	}
	if err != nil {
		b.cancel()
		return nil, err
	}
	return b, nil
}

// nobody is who takes connections where there is nothing that speaks with agents.
func (b *backchannel) nobody(_ context.Context, s *vm.Spec, _ net.Conn) {
	b.log.Debug("a container wants to speak, and nobody listens", "vm", s.Name)
}

// accept is called by the poller when somebody connects.
func (b *backchannel) accept() answer {
	var conn net.Conn
	var err error
	if e := b.raw.Control(func(fd uintptr) { conn, err = (&listener{fd: int(fd)}).accept() }); e != nil {
		return end // closed
	}
	b.lack.note(err)
	if err != nil {
		v := afterRefusal(err)
		if v == end {
			b.log.Warn("the backchannel takes no connections", "vm", b.spec.Name, "err", err)
		}
		return v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		_ = conn.Close()
		return end
	}
	if len(b.conns) >= backchannelMost {
		_ = conn.Close()
		return goOn
	}
	b.conns[conn] = true
	b.wg.Go(func() {
		b.handle(b.ctx, b.spec, conn)
		b.mu.Lock()
		delete(b.conns, conn)
		b.mu.Unlock()
		_ = conn.Close()
	})
	return goOn
}

// Close ends all connections and waits for those who serve them. end says that
// the container has ended, too: its socket is removed.
func (b *backchannel) Close(end bool) error {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	was := b.closed
	b.closed = true
	for conn := range b.conns {
		_ = conn.Close()
	}
	b.mu.Unlock()
	if was {
		return nil
	}
	b.remove()
	b.cancel()
	b.wg.Wait()
	err := b.file.Close()
	if end {
		err = errors.Join(err, removeSocket(b.path))
	}
	return err
}

// removeSocket removes a socket, and nothing else that may be there by now.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.Mode()&os.ModeSocket != 0 {
		err = os.Remove(path)
	}
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
