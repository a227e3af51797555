package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	actions["pose"] = pose
	actions["keeper"] = forever
	actions["rename"] = rename
}

// pose shows the command line of the keeper of another container, whose
// instance directory is the argument.
func pose(args []string) error {
	return syscall.Exec("/guest", []string{"/proc/self/fd/10", "keeper", args[0]}, nil)
}

// rename runs itself from memory, under the name that the argument says.
func rename(args []string) error {
	text, err := os.ReadFile("/guest")
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate(args[0], 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), args[0])
	if _, err := f.Write(text); err != nil {
		return err
	}
	// One that is open for writing is not executed.
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	read, err := unix.Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", read), []string{"guest", "count"}, nil)
}

// forever does nothing, and does not end. Without a timer the Go runtime would
// call it a deadlock.
func forever([]string) error {
	for {
		time.Sleep(time.Hour)
	}
}
