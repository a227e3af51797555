package inject

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	daemonName = "qemu-storage-daemon"
	exportTime = 20 * time.Second // for the daemon to start or to end
	exportPoll = 2 * time.Millisecond
)

// export is a qcow2 image shown as a file with the content of the disk.
type export struct {
	cmd   *exec.Cmd
	words bytes.Buffer
	ended chan struct{}
}

// startExport shows an image at path, a file that exists, by FUSE. The thread
// that calls must live as long as the export: its death is the daemon's.
func startExport(ctx context.Context, image, path string) (*export, error) {
	program, err := find(daemonName)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "%s is not installed", daemonName), "install the package qemu-system-common")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "this kernel has no FUSE: %w", err), "modprobe fuse")
	}
	node, err := json.Marshal(map[string]any{"driver": "qcow2", "node-name": "disk", "file": map[string]any{"driver": "file", "filename": image}})
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(map[string]any{"type": "fuse", "id": "out", "node-name": "disk", "mountpoint": path, "writable": true})
	if err != nil {
		return nil, err
	}
	e := &export{cmd: exec.Command(program, "--blockdev", string(node), "--export", string(out)), ended: make(chan struct{})}
	e.cmd.Stderr = &e.words
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := e.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = e.cmd.Wait() // what it said counts
		close(e.ended)
	}()
	if err := e.ready(ctx, path); err != nil {
		return nil, errors.Join(err, e.stop())
	}
	return e, nil
}

// ready waits until the file is that of the daemon.
func (e *export) ready(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, exportTime)
	defer cancel()
	tick := time.NewTicker(exportPoll)
	defer tick.Stop()
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(path, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
			return nil
		}
		select {
		case <-tick.C:
		case <-e.ended:
			return errs.New(errs.State, "%s: %s", daemonName, strings.TrimSpace(e.words.String()))
		case <-ctx.Done():
			return errs.New(errs.Unreachable, "%s does not show the image: %w", daemonName, ctx.Err())
		}
	}
}

// stop ends the daemon, which writes out what it still has.
func (e *export) stop() error {
	_ = e.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-e.ended:
	case <-time.After(exportTime):
		_ = e.cmd.Process.Kill()
		<-e.ended
		return fmt.Errorf("%s did not end and was killed", daemonName)
	}
	if status := e.cmd.ProcessState; !status.Success() && e.words.Len() > 0 {
		return fmt.Errorf("%s: %v: %s", daemonName, status, strings.TrimSpace(e.words.String()))
	}
	return nil
}
