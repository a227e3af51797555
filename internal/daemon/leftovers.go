package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// leftovers deals with the instance directories of an earlier daemon on the
// same base that did not end as it should. Those of machines that have gone
// are removed. Machines that still run are ended if force is set; else they are
// left alone, and IDs start above theirs. It returns the first free ID.
func leftovers(cfg Config, log *slog.Logger) (firstID int, err error) {
	entries, err := os.ReadDir(cfg.Base)
	if err != nil {
		return 0, err
	}
	var failed []error
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil || id < 0 || !e.IsDir() {
			continue
		}
		dir := filepath.Join(cfg.Base, e.Name())
		pid := runningIn(dir)
		if pid != 0 && !cfg.Force {
			log.Warn("a VM of an earlier minimega still runs; -force ends it", "dir", dir, "pid", pid)
			firstID = max(firstID, id+1)
			continue
		}
		failed = append(failed, removeLeftover(dir, pid))
		log.Warn("removed a VM that an earlier minimega left", "dir", dir, "ended pid", pid)
	}
	return firstID, errors.Join(failed...)
}

// runningIn returns the pid of the QEMU that runs in an instance directory, or
// 0. A pid that now belongs to another program does not count: the directory
// must stand on its command line.
func runningIn(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "qemu.pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(line, []byte(dir+"/qmp")) {
		return 0
	}
	return pid
}

func removeLeftover(dir string, pid int) error {
	if pid != 0 {
		p, err := host.AdoptProc(pid)
		if err != nil {
			return errs.AtStep(err, "end the QEMU in "+dir)
		}
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if err := errors.Join(p.Kill(ctx), p.Close()); err != nil {
			return errs.AtStep(err, "end the QEMU in "+dir)
		}
	}
	return os.RemoveAll(dir)
}
