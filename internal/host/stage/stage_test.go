package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// runProgram executes p and returns what it printed, what it reported and its exit code.
func runProgram(t *testing.T, p *Program) (out string, record []byte, code int) {
	t.Helper()
	f, err := p.Open("stage-test")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close() })
		return r, w
	}
	outR, outW := pipe()
	repR, repW := pipe()
	proc, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []string{"stage"}, &os.ProcAttr{Files: []*os.File{nil, outW, outW, repW}})
	outW.Close()
	repW.Close()
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(outR)
	record, _ = io.ReadAll(repR)
	st, err := proc.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if ws := st.Sys().(syscall.WaitStatus); ws.Signaled() {
		t.Fatalf("killed by %v", ws.Signal())
	}
	return string(text), record, st.ExitCode()
}

func write(p *Program, s string) Call {
	return Call{Name: "write", Nr: unix.SYS_WRITE, Args: [6]Arg{1, p.Bytes([]byte(s)), Arg(len(s))}}
}

func exit(code int) Call {
	return Call{Name: "exit", Nr: unix.SYS_EXIT_GROUP, Args: [6]Arg{Int(code)}}
}

func TestCallsInOrder(t *testing.T) {
	var p Program
	p.Add(write(&p, "one "))
	p.Add(write(&p, "two"))
	p.Add(exit(7))
	out, record, code := runProgram(t, &p)
	if out != "one two" || len(record) != 0 || code != 7 {
		t.Errorf("%q, %x, %d", out, record, code)
	}
}

func TestFailureIsReported(t *testing.T) {
	var p Program
	p.Add(write(&p, "before"))
	p.Add(Call{Name: "change directory", Nr: unix.SYS_CHDIR, Args: [6]Arg{p.String("/nonexistent")}})
	p.Add(write(&p, "after"))
	p.Add(exit(0))
	out, record, code := runProgram(t, &p)
	f, err := failure(&p, record)
	if err != nil {
		t.Fatal(err)
	}
	if out != "before" || code != 127 || f.Name != "change directory" || !errors.Is(f, unix.ENOENT) {
		t.Errorf("%q, %v, %d", out, f, code)
	}
}

func TestMayFail(t *testing.T) {
	for _, may := range []int{int(unix.ENOENT), Ignore} {
		var p Program
		p.Add(Call{Name: "chdir", Nr: unix.SYS_CHDIR, Args: [6]Arg{p.String("/nonexistent")}, May: may})
		p.Add(exit(3))
		if _, record, code := runProgram(t, &p); code != 3 || len(record) != 0 {
			t.Errorf("may %d: %x, %d", may, record, code)
		}
	}
	var p Program
	p.Add(Call{Name: "chdir", Nr: unix.SYS_CHDIR, Args: [6]Arg{p.String("/nonexistent")}, May: int(unix.EEXIST)})
	p.Add(exit(3))
	if _, _, code := runProgram(t, &p); code != 127 {
		t.Errorf("an error other than the one that may be: %d", code)
	}
}

// A result goes where it is needed, and decides the way: fork, wait, exit.
func TestResultsAndBranches(t *testing.T) {
	var p Program
	status := p.Words(0)
	pid := p.Words(0)
	fork := p.Add(Call{Name: "fork", Nr: unix.SYS_CLONE, Args: [6]Arg{Arg(unix.SIGCHLD)}})
	wait := p.Add(Call{Name: "wait", Nr: unix.SYS_WAIT4, Args: [6]Arg{0, status}})
	p.Calls[fork].Out = []Slot{ArgOf(wait, 0), At(pid)}
	p.Add(Call{Name: "print pid", Nr: unix.SYS_WRITE, Args: [6]Arg{1, pid, 8}})
	p.Add(Call{Name: "the child's status", Nr: Load, Args: [6]Arg{status}})
	p.Add(exit(0))
	p.Calls[fork].IfZero = p.Add(exit(5))
	out, record, code := runProgram(t, &p)
	if len(out) != 8 || binary.NativeEndian.Uint64([]byte(out)) == 0 {
		t.Errorf("pid: %x", out)
	}
	f, err := failure(&p, record)
	if err != nil || code != 127 || f.Name != "the child's status" || f.Errno != 5<<8 {
		t.Errorf("%v %v %d", f, err, code)
	}
}

func TestExecute(t *testing.T) {
	var p Program
	p.Add(Call{Name: "exec", Nr: unix.SYS_EXECVE, Args: [6]Arg{p.String("/bin/echo"), p.Strings([]string{"echo", "a b", ""}), p.Strings(nil)}})
	if out, _, code := runProgram(t, &p); out != "a b \n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
}

// The room is empty, can be written to, and is seen from outside.
func TestRoom(t *testing.T) {
	p := Program{Room: 100}
	print := Call{Name: "print", Nr: unix.SYS_WRITE, Args: [6]Arg{1, RoomAddr + 92, 8}}
	p.Add(print)
	p.Add(Call{Name: "dup", Nr: unix.SYS_DUP3, Args: [6]Arg{1, 0x2a}, Out: []Slot{At(RoomAddr + 92)}})
	p.Add(print)
	p.Add(exit(0))
	if out, record, code := runProgram(t, &p); out != "\x00\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x00\x00\x00\x00" || code != 0 {
		t.Errorf("%q, %x, %d", out, record, code)
	}
}

func TestTooManyPlaces(t *testing.T) {
	var p Program
	p.Add(Call{Name: "x", Out: []Slot{At(1), At(1), At(1), At(1)}})
	if _, err := p.Image(); err == nil {
		t.Error("taken")
	}
}

// failure reads a record.
func failure(p *Program, record []byte) (*Failure, error) {
	if len(record) != RecordSize {
		return nil, fmt.Errorf("a record of %d bytes", len(record))
	}
	return p.Failure(binary.NativeEndian.Uint64(record), int64(binary.NativeEndian.Uint64(record[8:])))
}

func FuzzFailure(f *testing.F) {
	f.Add(uint64(0), int64(0))
	f.Add(^uint64(0), int64(-1))
	var p Program
	p.Add(exit(0))
	p.Add(exit(1))
	f.Add(p.callAddr(1), int64(-2))
	f.Fuzz(func(t *testing.T, at uint64, value int64) {
		if fail, err := p.Failure(at, value); err == nil && fail.Name != "exit" {
			t.Fatal(fail)
		}
	})
}
