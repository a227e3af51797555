package inject

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	childTime = 20 * time.Second // for a program to get ready or to end
	childPoll = 2 * time.Millisecond
)

// child is a program that serves a file system by FUSE. It gets a signal when
// the thread that started it ends.
type child struct {
	name  string
	cmd   *exec.Cmd
	words bytes.Buffer
	ended chan struct{}
}

func startChild(death syscall.Signal, path string, args ...string) (*child, error) {
	c := &child{name: path[strings.LastIndexByte(path, '/')+1:], cmd: exec.Command(path, args...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.words, &c.words
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: death, Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = c.cmd.Wait() // what it said counts
		close(c.ended)
	}()
	return c, nil
}

// ready waits until a path is on FUSE.
func (c *child) ready(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, childTime)
	defer cancel()
	tick := time.NewTicker(childPoll)
	defer tick.Stop()
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.ended:
			return errs.New(errs.State, "%s: %s", c.name, oneLine(c.words.Bytes()))
		case <-ctx.Done():
			return errs.New(errs.Unreachable, "%s does not answer: %w", c.name, ctx.Err())
		}
	}
}

// stop ends the program, which writes out what it still has.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	return c.wait()
}

func (c *child) wait() error {
	timeout := time.NewTimer(childTime)
	defer timeout.Stop()
	select {
	case <-c.ended:
	case <-timeout.C:
		_ = c.cmd.Process.Kill()
		<-c.ended
		return fmt.Errorf("%s did not end and was killed", c.name)
	}
	if status := c.cmd.ProcessState; !status.Success() && c.words.Len() > 0 {
		return fmt.Errorf("%s: %v: %s", c.name, status, oneLine(c.words.Bytes()))
	}
	return nil
}
