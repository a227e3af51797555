package basedir

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// alreadyRunning is the text that clients and scripts know.
const alreadyRunning = "minimega appears to already be running, override with -force"

// answerTime is how long a socket may take to accept before it counts as
// overloaded, which is alive.
const answerTime = time.Second

// holdLock takes the directory's lock, which the kernel gives back when the
// process ends, however it ends. The file stays: removing it would let two
// daemons lock two files of that name.
func holdLock(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	err = flock(f, dir)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, errors.Join(errHeld(dir), f.Close())
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}

// deadTime is how long the lock of a process that is gone may stay: one that
// was killed while it started another leaves it to that until it has become
// another program.
const deadTime = 10 * time.Second

// flock takes the lock, or fails at once if its holder lives.
func flock(f *os.File, dir string) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(deadTime); ; <-tick.C {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || holderLives(dir) || time.Now().After(until) {
			return err
		}
	}
}

// holderLives reports whether the process in the pid file, if there is one, lives.
func holderLives(dir string) bool {
	text, err := os.ReadFile(filepath.Join(dir, PidName))
	if err != nil {
		return true // starting: it has not written it yet
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return err == nil && pid > 0 && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// errHeld says who holds the directory. -force does not help against a daemon
// that lives: both would manage the same machines.
func errHeld(dir string) error {
	who := "a minimega that is starting"
	if pid, err := os.ReadFile(filepath.Join(dir, PidName)); err == nil && len(pid) > 0 && len(pid) < 12 {
		who = "process " + strings.TrimSpace(string(pid))
	}
	return errs.WithRemedy(errs.New(errs.State, alreadyRunning),
		fmt.Sprintf("%s uses %s; while it runs, -force has no effect: end it with `minimega -base %s -e quit`, or choose another -base", who, dir, dir))
}

// removeSocket removes the socket at path if nobody answers on it, or with
// force, and reports whether it did.
func removeSocket(path string, force bool) (bool, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("command socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return false, errs.WithRemedy(errs.New(errs.State, "%s is in the way of the command socket and is no socket", path),
			"move it away, or choose another -base")
	}
	if !force && answers(path) {
		return false, errs.New(errs.State, alreadyRunning)
	}
	if err := os.Remove(path); err != nil {
		return false, fmt.Errorf("stale command socket: %w", err)
	}
	return true, nil
}

// answers reports whether something accepts connections on the socket. What a
// process that is gone has left to another, which it was just starting, does not
// count.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, answerTime)
	if err != nil {
		return !errors.Is(err, unix.ECONNREFUSED)
	}
	defer c.Close()
	return !host.ListenerGone(c.(*net.UnixConn))
}

// InUse returns the base directories that daemons of this host hold, as far as
// we may see what other processes have open.
func InUse() ([]string, error) {
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	seen := map[string]bool{}
	var bases []string
	for _, l := range links {
		target, err := os.Readlink(l)
		if err != nil || filepath.Base(target) != lockName {
			continue
		}
		if base := filepath.Dir(target); !seen[base] {
			seen[base] = true
			bases = append(bases, base)
		}
	}
	return bases, err
}
