package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"minimega/internal/qmp"
)

// cmdCrash kills the last daemon, which can do nothing about it.
func cmdCrash(ts *testscript.TestScript, neg bool, args []string) {
	crash(theHost(ts))
}

func crash(h *host) {
	d := h.daemons[len(h.daemons)-1]
	_ = d.process.Signal(syscall.SIGKILL) // it may have ended by itself
	<-d.ended
}

// cmdGone waits for the last daemon, which was told to end.
func cmdGone(ts *testscript.TestScript, neg bool, args []string) {
	h := theHost(ts)
	select {
	case <-h.daemons[len(h.daemons)-1].ended:
	case <-time.After(2 * time.Minute):
		ts.Fatalf("the daemon does not end")
	}
}

// cmdEndVM kills the process of a VM behind the daemon's back: endvm NAME.
func cmdEndVM(ts *testscript.TestScript, neg bool, args []string) {
	names, err := filepath.Glob(filepath.Join(ts.Getenv("BASE"), "*", "name"))
	ts.Check(err)
	for _, path := range names {
		if name, err := os.ReadFile(path); err != nil || string(name) != args[0] {
			continue
		}
		ts.Check(killQEMU(theHost(ts), filepath.Dir(path)))
		return
	}
	ts.Fatalf("there is no VM %s", args[0])
}

// cmdQMP asks the QEMU of an instance directory for something while no daemon
// runs: qmp DIR COMMAND JSON. A refusal is only logged: it may have been asked before.
func cmdQMP(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := qmp.Dial(ctx, ts.MkAbs(args[0])+"/qmp")
	ts.Check(err)
	defer c.Close()
	err = c.Execute(ctx, args[1], json.RawMessage(args[2]), nil)
	if refused := (*qmp.Error)(nil); errors.As(err, &refused) {
		ts.Logf("%v", err)
		return
	}
	ts.Check(err)
}

// killQEMU kills the process that has an instance directory on its command
// line, and waits until it is gone.
func killQEMU(h *host, dir string) error {
	for _, pid := range h.processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.Contains(line, []byte("unix:"+dir+"/qmp")) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return err
		}
		for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Contains(string(stat), ") Z ") {
				return nil
			}
		}
		return fmt.Errorf("process %d does not end", pid)
	}
	return fmt.Errorf("no process in %s", dir)
}
