package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	actions["agent"] = agent
	actions["connects"] = connects
	actions["users"] = users
}

// agent speaks with the host: what it says comes back.
func agent([]string) error {
	c, err := net.Dial("unix", "/cc")
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
		return fmt.Errorf("%q came back, %w", got, err)
	}
	fmt.Println("spoke")
	return nil
}

// connects connects so often that the other side would run out of descriptors.
func connects([]string) error {
	var held []net.Conn
	for i := range 4000 {
		c, err := net.DialTimeout("unix", "/cc", 5*time.Second)
		switch {
		case errors.Is(err, unix.EAGAIN):
			time.Sleep(time.Millisecond)
		case err != nil:
			return fmt.Errorf("connection %d: %w", i, err)
		case len(held) < 500:
			held = append(held, c)
		default:
			c.Close()
		}
	}
	fmt.Println("connected")
	select {}
}

// users looks at itself: root here, and owner of what is here.
func users(args []string) error {
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil || strings.Join(strings.Fields(string(text)), " ") != args[0] {
		return fmt.Errorf("users %q, not %q, %w", text, args[0], err)
	}
	if os.Getuid() != 0 || os.Getgid() != 0 {
		return fmt.Errorf("user %d, group %d", os.Getuid(), os.Getgid())
	}
	for _, file := range []string{"/tmp/mine", "/vol/mine"} {
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			return err
		}
	}
	for _, path := range []string{"/", "/guest", "/tmp/mine", "/vol/mine", "/dev", "/dev/null", "/dev/fifos", "/dev/fifos/fifo0", "/proc/self/status"} {
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil || st.Uid != 0 || st.Gid != 0 {
			return fmt.Errorf("%s belongs to user %d, group %d, %w", path, st.Uid, st.Gid, err)
		}
	}
	for uid := range 2 { // others of the range are there, too
		if err := os.Chown("/tmp/mine", uid, uid); err != nil {
			return err
		}
	}
	if err := os.Chown("/tmp/mine", 1<<16, 0); err == nil {
		return errors.New("a user outside of the range was used")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(0)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req) // its network is its own
}
