package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	actions["unmasked"] = unmasked
	actions["plant"] = plant
	actions["keeps"] = keeps
}

// unmasked looks in /real for a proc that is not what /proc should be.
func unmasked([]string) error {
	var failed []error
	for _, dir := range []string{"/real", "/proc"} {
		for _, path := range []string{"/sys/kernel/core_pattern", "/sysrq-trigger"} {
			f, err := os.OpenFile(dir+path, os.O_WRONLY, 0)
			if err == nil {
				failed = append(failed, fmt.Errorf("BROKEN OUT: opened %s%s", dir, path), f.Close())
			} else if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EACCES) {
				failed = append(failed, err)
			}
		}
	}
	return errors.Join(failed...)
}

// plant leaves links to the directory of the host that is the argument wherever
// the host may look later, and tries to replace what is mounted. With another
// argument it does not end.
func plant(args []string) error {
	secret := args[0]
	up := strings.Repeat("../", 40) + secret[1:]
	var failed []error
	for _, path := range []string{"/proc", "/sys", "/dev", "/vol"} {
		failed = append(failed, refused("rename of "+path, os.Rename(path, "/tmp/moved"), unix.EBUSY), refused("removal of "+path, os.Remove(path), unix.EBUSY))
	}
	if err := os.Remove("/cc"); !errors.Is(err, unix.EBUSY) { // mounted over an overlay, else a file of the root
		failed = append(failed, err, os.Symlink(secret+"/precious", "/cc"))
	}
	for at, to := range map[string]string{"/data": secret, "/fifos": up, "/vol/absolute": secret, "/vol/relative": up,
		"/vol/magic": "/proc/1/root" + secret, "/vol/root": "/proc/self/root/" + up, "/tmp/absolute": secret, "/tmp/relative": up} {
		failed = append(failed, os.Symlink(to, at))
	}
	if err := errors.Join(failed...); err != nil || len(args) == 1 {
		return err
	}
	return forever(nil)
}

// keeps tries to change a file that is not to be changed.
func keeps(args []string) error {
	f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_TRUNC, 0)
	if err == nil {
		f.Close()
	}
	return errors.Join(refused("write to "+args[0], err, unix.EROFS), refused("chmod of "+args[0], os.Chmod(args[0], 0o777), unix.EROFS))
}
