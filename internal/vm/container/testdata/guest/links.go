package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func init() {
	actions["unmasked"] = unmasked
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
