package guesttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
)

// Patience is how long Start's guests may take for anything. A busy machine
// emulates slowly.
const Patience = 6 * time.Minute

// VM is a running QEMU with the serial console of its guest. It ends with its
// test.
type VM struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	qmp    net.Conn
	replay *json.Decoder
	exited chan struct{}
	status error

	mu      sync.Mutex
	changed chan struct{} // closed when output grows
	output  []byte
	seen    int // up to here Expect has read
}

// Start boots the kernel (Kernel or FastKernel) and Initrd with more words for
// the kernel command line and more arguments for QEMU, under TCG on a PC.
func Start(t testing.TB, kernel, words string, args ...string) *VM {
	t.Helper()
	return StartQEMU(t, append([]string{
		"-kernel", kernel, "-initrd", Initrd(t), "-append", "console=ttyS0 quiet " + words}, args...)...)
}

// StartQEMU starts QEMU with the arguments, a serial console and QMP.
func StartQEMU(t testing.TB, args ...string) *VM {
	t.Helper()
	dir, err := os.MkdirTemp("", "gt-*") // short: sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Marks: []string{dir}}.Check(t) // after the clean-ups that follow
	t.Cleanup(func() { os.RemoveAll(dir) })
	qmp := filepath.Join(dir, "qmp")
	vm := &VM{t: t, exited: make(chan struct{}), changed: make(chan struct{})}
	vm.cmd = exec.Command("qemu-system-x86_64", append([]string{
		"-M", "pc", "-accel", "tcg", "-m", "192", "-nodefaults", "-no-user-config", "-vga", "std", "-display", "none",
		"-chardev", "stdio,id=s", "-serial", "chardev:s", "-qmp", "unix:" + qmp + ",server=on,wait=off"}, args...)...)
	vm.cmd.Stdout, vm.cmd.Stderr = (*sink)(vm), (*sink)(vm)
	if vm.stdin, err = vm.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := vm.cmd.Start(); err != nil {
		t.Fatalf("start QEMU: %v (apt-get install qemu-system-x86)", err)
	}
	go func() {
		vm.status = vm.cmd.Wait()
		close(vm.exited)
	}()
	t.Cleanup(vm.kill)
	vm.dialQMP(qmp)
	return vm
}

func (vm *VM) kill() {
	vm.cmd.Process.Kill() // an error says that it has ended
	<-vm.exited
	if vm.qmp != nil {
		vm.qmp.Close()
	}
	if vm.t.Failed() {
		vm.t.Logf("serial console:\n%s", vm.Output())
	}
}

// sink collects what QEMU prints, for Expect.
type sink VM

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.output = append(s.output, p...)
	close(s.changed)
	s.changed = make(chan struct{})
	return len(p), nil
}

// Output returns all the console has said.
func (vm *VM) Output() string {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	return string(vm.output)
}

// Expect waits until the console says text, and returns what came before it
// since the last Expect.
func (vm *VM) Expect(text string) string {
	vm.t.Helper()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		vm.mu.Lock()
		rest, changed := vm.output[vm.seen:], vm.changed
		i := bytes.Index(rest, []byte(text))
		if i >= 0 {
			vm.seen += i + len(text)
			vm.mu.Unlock()
			return string(rest[:i])
		}
		vm.mu.Unlock()
		select {
		case <-changed:
		case <-vm.exited:
			vm.t.Fatalf("QEMU ended (%v) before the guest said %q", vm.status, text)
		case <-timeout.C:
			vm.t.Fatalf("the guest does not say %q", text)
		}
	}
}

// Send types a line at the serial console.
func (vm *VM) Send(line string) {
	vm.t.Helper()
	if _, err := io.WriteString(vm.stdin, line+"\r"); err != nil {
		vm.t.Fatal(err)
	}
}

// Prompt waits for the shell.
func (vm *VM) Prompt() {
	vm.t.Helper()
	vm.Expect("# ")
}

// Run runs a command at the shell, whose prompt has been seen, and returns
// what it prints.
func (vm *VM) Run(line string) string {
	vm.t.Helper()
	vm.Send(line)
	vm.Expect("\r\n") // the echo
	out := vm.Expect("# ")
	if i := strings.LastIndexByte(out, '\n'); i >= 0 {
		return strings.ReplaceAll(out[:i+1], "\r\n", "\n") // without the prompt's name
	}
	return ""
}

// Until runs a command, again after a moment while its output is without text.
func (vm *VM) Until(line, text string) string {
	vm.t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); {
		if out := vm.Run(line); strings.Contains(out, text) {
			return out
		}
		vm.Run("sleep 0.3")
	}
	vm.t.Fatalf("%s never prints %q", line, text)
	return ""
}

// Wait waits for QEMU to end and returns its status: nil for 0.
func (vm *VM) Wait() error {
	vm.t.Helper()
	return vm.waitFor(Patience)
}

func (vm *VM) waitFor(d time.Duration) error {
	vm.t.Helper()
	timeout := time.NewTimer(d)
	defer timeout.Stop()
	select {
	case <-vm.exited:
	case <-timeout.C:
		vm.t.Fatal("QEMU does not end")
	}
	return vm.status
}

func (vm *VM) dialQMP(path string) {
	vm.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(Patience); ; {
		c, err := net.Dial("unix", path)
		if err == nil {
			vm.qmp, vm.replay = c, json.NewDecoder(c)
			break
		}
		select {
		case <-vm.exited:
			vm.t.Fatalf("QEMU ended at once: %v\n%s", vm.status, vm.Output())
		case <-tick.C:
		}
		if time.Now().After(end) {
			vm.t.Fatal(err)
		}
	}
	var greeting any
	if err := vm.replay.Decode(&greeting); err != nil {
		vm.t.Fatal(err)
	}
	vm.QMP("qmp_capabilities", nil)
}

// QMP runs a command and returns its result.
func (vm *VM) QMP(command string, arguments map[string]any) any {
	vm.t.Helper()
	if arguments == nil {
		arguments = map[string]any{}
	}
	req := map[string]any{"execute": command, "arguments": arguments}
	if err := json.NewEncoder(vm.qmp).Encode(req); err != nil {
		vm.t.Fatal(err)
	}
	result, err := vm.answer()
	if err != nil {
		vm.t.Fatalf("QMP %s: %v", command, err)
	}
	return result
}

func (vm *VM) answer() (any, error) {
	for {
		var a struct {
			Return any             `json:"return"`
			Error  json.RawMessage `json:"error"`
			Event  string          `json:"event"`
		}
		if err := vm.replay.Decode(&a); err != nil {
			return nil, err
		}
		switch {
		case a.Error != nil:
			return nil, errors.New(string(a.Error))
		case a.Event == "":
			return a.Return, nil
		}
	}
}

// Keys presses keys at the guest's keyboard; a key is a QEMU name ("a", "ret",
// "spc"), or several held together, joined by dashes.
func (vm *VM) Keys(keys ...string) {
	vm.t.Helper()
	for _, k := range keys {
		var list []any
		for _, code := range strings.Split(k, "-") {
			list = append(list, map[string]any{"type": "qcode", "data": code})
		}
		vm.QMP("send-key", map[string]any{"keys": list, "hold-time": 20})
	}
}

// Screen returns the guest's screen as a binary PPM picture.
func (vm *VM) Screen() []byte {
	vm.t.Helper()
	path := filepath.Join(vm.t.TempDir(), "screen.ppm")
	vm.QMP("screendump", map[string]any{"filename": path})
	data, err := os.ReadFile(path)
	if err != nil {
		vm.t.Fatal(fmt.Errorf("screendump: %w", err))
	}
	return data
}
