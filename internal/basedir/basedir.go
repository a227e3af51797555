// Package basedir makes and guards the base directory of a daemon: private to
// its owner (or a group), used by one daemon at a time, with the socket that
// clients dial and the pid file. Files inside belong to the packages that
// write them.
package basedir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Names of the files in the base directory that this package writes.
const (
	SocketName = "minimega"
	PidName    = "minimega.pid"
	lockName   = "minimega.lock"
	newSocket  = ".socket" // the socket until it listens
)

// Options say which directory, and for whom.
type Options struct {
	Path  string
	Group string // name or number of a group that may use the daemon; "" for none
	// Force takes over a socket that something answers on, as long as no
	// daemon of this kind holds the directory.
	Force bool
	Log   *slog.Logger
}

// Dir is a base directory that this process holds.
type Dir struct {
	path   string
	gid    int // -1: private to the owner
	lock   *os.File
	socket fs.FileInfo // what Listen made
}

// Open makes or checks the directory and holds it until Close. A socket that
// nobody answers on is removed. Errors: errs.Permission when the directory
// could be somebody else's, errs.State when a daemon uses it.
func Open(o Options) (*Dir, error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("base directory: %w", err)
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}
	if err := secure(path, gid); err != nil {
		return nil, err
	}
	d := &Dir{path: path, gid: gid}
	if d.lock, err = holdLock(path); err != nil {
		return nil, err
	}
	if err := d.claim(o); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	return d, nil
}

// Path is the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// claim clears away what an earlier daemon left and writes the pid file.
func (d *Dir) claim(o Options) error {
	stale, err := removeSocket(d.join(SocketName), o.Force)
	if err != nil {
		return err
	}
	if stale {
		o.Log.Info("removed the socket of a minimega that is gone", "socket", d.join(SocketName))
	}
	return d.writePid()
}

// Listen makes the socket. It appears under its name only when it accepts
// clients, with mode 0600 (0660 for a group).
func (d *Dir) Listen() (*net.UnixListener, error) {
	l, err := d.listen()
	if err != nil {
		return nil, fmt.Errorf("command socket: %w", err)
	}
	return l, nil
}

func (d *Dir) listen() (*net.UnixListener, error) {
	tmp := d.join(newSocket)
	if len(d.join(SocketName)) > maxSocketPath {
		return nil, errs.WithRemedy(errs.New(errs.Invalid, "the path %q is longer than the %d bytes of a socket address",
			d.join(SocketName), maxSocketPath), "use a shorter -base")
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The directory keeps others out until the mode is right: a group may
	// enter, but a new socket gives it no write permission to connect with.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := d.publish(tmp); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(tmp))
	}
	return l, nil
}

// publish gives the socket its mode, group and name.
func (d *Dir) publish(tmp string) error {
	mode := os.FileMode(0o600)
	if d.gid >= 0 {
		mode = 0o660
		if err := os.Chown(tmp, -1, d.gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	info, err := os.Lstat(tmp)
	if err != nil {
		return err
	}
	d.socket = info
	return os.Rename(tmp, d.join(SocketName))
}

// Close removes the socket and the pid file, unless they are no longer ours,
// and lets go of the directory.
func (d *Dir) Close() error {
	err := d.removeOwn(SocketName, func(path string) bool {
		info, err := os.Lstat(path)
		return err == nil && d.socket != nil && os.SameFile(info, d.socket)
	})
	err2 := d.removeOwn(PidName, func(path string) bool {
		data, err := os.ReadFile(path)
		return err == nil && string(data) == strconv.Itoa(os.Getpid())
	})
	return errors.Join(err, err2, d.lock.Close())
}

func (d *Dir) removeOwn(name string, own func(path string) bool) error {
	path := d.join(name)
	if !own(path) {
		return nil
	}
	return os.Remove(path)
}

// writePid writes the pid file, in one step.
func (d *Dir) writePid() error {
	tmp := d.join("." + PidName)
	if err := os.WriteFile(tmp, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return fmt.Errorf("pid file: %w", err)
	}
	if err := os.Rename(tmp, d.join(PidName)); err != nil {
		return fmt.Errorf("pid file: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}

func (d *Dir) join(name string) string { return filepath.Join(d.path, name) }

// maxSocketPath is the room for a path in struct sockaddr_un (unix(7)).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1
