// Command fakeqemu stands for QEMU where many machines are needed and none has
// to run a guest: it takes QEMU's command line, answers on the control socket
// as QEMU does, one client after the other, and ends when it is told to.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "fakeqemu:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if answer(args) {
		return nil
	}
	if err := os.WriteFile(value(args, "-pidfile"), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return err
	}
	screen, err := net.Listen("unix", socket(value(args, "-vnc")))
	if err != nil {
		return err
	}
	go refuse(screen)
	control, err := net.Listen("unix", socket(value(args, "-qmp")))
	if err != nil {
		return err
	}
	m := &machine{status: "prelaunch"}
	for {
		c, err := control.Accept()
		if err != nil {
			return err
		}
		if m.serve(c) {
			return nil
		}
	}
}

// answer prints what a QEMU can do, if that is asked.
func answer(args []string) bool {
	switch {
	case slices.Contains(args, "-version"):
		fmt.Println("QEMU emulator version 9.0.0")
	case !slices.Contains(args, "help"):
		return false
	case value(args, "-device") == "help":
		fmt.Println("Network devices:\nname \"e1000\", bus PCI\nname \"virtio-net-pci\", bus PCI")
	default:
		fmt.Println("Available:\nhost\nmax\npc\nsocket")
	}
	return true
}

func value(args []string, flag string) string {
	if i := slices.Index(args, flag); i >= 0 && i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

// socket returns the path in `unix:path,options`, in which commas are doubled.
func socket(s string) string {
	s = strings.ReplaceAll(strings.TrimPrefix(s, "unix:"), ",,", "\x00")
	s, _, _ = strings.Cut(s, ",")
	return strings.ReplaceAll(s, "\x00", ",")
}

// refuse takes clients of the screen and lets them go.
func refuse(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = c.Close()
	}
}

type machine struct {
	mu     sync.Mutex
	status string
}

// serve talks to one client and reports whether the machine is to end.
func (m *machine) serve(c net.Conn) bool {
	defer c.Close()
	if _, err := io.WriteString(c, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 9}, "package": ""}, "capabilities": ["oob"]}}`+"\r\n"); err != nil {
		return false
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		var r struct {
			Execute string          `json:"execute"`
			ID      json.RawMessage `json:"id"`
		}
		if json.Unmarshal(lines.Bytes(), &r) != nil || r.Execute == "" {
			continue
		}
		if len(r.ID) == 0 {
			r.ID = json.RawMessage("null")
		}
		if _, err := fmt.Fprintf(c, "{\"return\": %s, \"id\": %s}\r\n", m.execute(r.Execute), r.ID); err != nil {
			return r.Execute == "quit"
		}
		if r.Execute == "quit" {
			_, _ = io.WriteString(c, `{"event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}, "timestamp": {"seconds": 0, "microseconds": 0}}`+"\r\n")
			return true
		}
	}
	return false
}

func (m *machine) execute(command string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch command {
	case "cont":
		m.status = "running"
	case "stop":
		m.status = "paused"
	case "query-status":
		return fmt.Sprintf(`{"status": %q, "running": %t, "singlestep": false}`, m.status, m.status == "running")
	}
	return "{}"
}
