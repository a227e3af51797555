// Package stage turns a list of system calls into a program: an ELF executable
// of a few KiB that makes these calls one after the other and then becomes
// what the last of them executes. A process that is set up this way never
// holds a Go runtime, starts in a fraction of a millisecond and waits in some
// KiB of memory.
package stage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Report is the descriptor on which a program says which call failed. It must
// be open when the program starts.
const Report = 3

// Load is no system call: its result is the 32-bit word at its first argument,
// and a word other than zero makes it fail.
const Load = -1

// Ignore lets a call fail with any error.
const Ignore = -1

// Arg is an argument of a call: a number, or the address of something in the program.
type Arg uint64

// Int makes an argument of a number, which may be negative.
func Int(n int) Arg { return Arg(uint64(int64(n))) }

// Call is one system call.
type Call struct {
	Name string // of the step, for errors
	Nr   int    // unix.SYS_*, or Load
	Args [6]Arg
	// Out says where else the result is stored; nil for nowhere.
	Out []Slot
	// May is an error that is as good as success, or Ignore.
	May int
	// IfZero is the index of the call that follows a result of zero instead of
	// the next; 0 for the next.
	IfZero int
}

// Slot is a place of 64 bits: an argument of a later call or a word in memory.
type Slot struct {
	call, arg int
	addr      Arg // if call < 0
}

// ArgOf is argument arg of call number call.
func ArgOf(call, arg int) Slot { return Slot{call: call, arg: arg} }

// At is a place in memory, see Program.Words.
func At(addr Arg) Slot { return Slot{call: -1, addr: addr} }

// Program collects calls and what they point to.
type Program struct {
	Calls []Call
	// Room is how many bytes of zeroed memory there are at RoomAddr, for whoever
	// keeps something in the process from outside (proc_pid_mem(5)). They take
	// memory once they are written to.
	Room int
	mem  []byte
}

// RoomAddr is where the room of a program begins.
const RoomAddr = 0x30000000

// Where the parts are in memory and in the file. Any addresses that are free in
// every process will do; both are alike in their low bits, as the pages of a
// file demand. Data begins with the record of a failure and the address of the
// first call; memory follows, then the calls.
const (
	codeAddr = 0x10000000
	dataAddr = 0x20000000 + dataOff
	dataOff  = 0x1000
	pageSize = 0x10000 // the largest there is

	recordSize = 16
	memAddr    = dataAddr + recordSize + 8
)

// Reserve makes room for so many calls and bytes of memory.
func (p *Program) Reserve(calls, memory int) {
	p.Calls = slices.Grow(p.Calls, calls)
	p.mem = slices.Grow(p.mem, memory)
}

// Bytes puts b into memory, aligned for any type, and returns its address.
func (p *Program) Bytes(b []byte) Arg {
	at := Arg(memAddr + len(p.mem))
	p.mem = append(p.mem, b...)
	for len(p.mem)%8 != 0 {
		p.mem = append(p.mem, 0)
	}
	return at
}

// String puts s into memory, ended by a zero. A zero inside is the end as well.
func (p *Program) String(s string) Arg { return p.Bytes(append([]byte(s), 0)) }

// Words puts 64-bit words into memory and returns their address.
func (p *Program) Words(words ...Arg) Arg {
	b := make([]byte, 0, 8*len(words))
	for _, w := range words {
		b = binary.NativeEndian.AppendUint64(b, uint64(w))
	}
	return p.Bytes(b)
}

// Strings puts a list as of argv into memory.
func (p *Program) Strings(list []string) Arg {
	words := make([]Arg, 0, len(list)+1)
	for _, s := range list {
		words = append(words, p.String(s))
	}
	return p.Words(append(words, 0)...)
}

// Add appends a call and returns its index.
func (p *Program) Add(c Call) int {
	p.Calls = append(p.Calls, c)
	return len(p.Calls) - 1
}

// Failure is a call that failed.
type Failure struct {
	Name  string
	Errno unix.Errno // or the word that Load found
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %v", f.Name, f.Errno) }
func (f *Failure) Unwrap() error { return f.Errno }

// RecordSize is the length of what a failed program writes to Report: two words.
const RecordSize = recordSize

// Failure explains what a failed program wrote: the address of the call, and
// the result, which is the negative error.
func (p *Program) Failure(at uint64, value int64) (*Failure, error) {
	i := (at - p.callAddr(0)) / callSize
	if at < p.callAddr(0) || i >= uint64(len(p.Calls)) {
		return nil, fmt.Errorf("the program failed in a call that it does not have: %#x", at)
	}
	return &Failure{p.Calls[i].Name, unix.Errno(-value)}, nil
}

// callSize is the length of a call in memory: its number, six arguments, the
// error it may have, the call to go to on zero, and where to store the result
// three times.
const (
	callSize = 8 * (1 + 6 + 1 + 1 + maxOut)
	maxOut   = 3
)

// callAddr is where a call is once all memory has been given out.
func (p *Program) callAddr(i int) uint64 { return memAddr + uint64(len(p.mem)) + uint64(i)*callSize }

// Image returns the program as an ELF executable.
func (p *Program) Image() ([]byte, error) {
	code, machine, err := machineCode()
	if err != nil {
		return nil, err
	}
	data, err := p.table()
	if err != nil {
		return nil, err
	}
	return image(machine, code, data, p.Room)
}

func (p *Program) table() ([]byte, error) {
	le := binary.NativeEndian
	data := make([]byte, recordSize, recordSize+8+len(p.mem)+len(p.Calls)*callSize)
	data = append(le.AppendUint64(data, p.callAddr(0)), p.mem...)
	for i, c := range p.Calls {
		if len(c.Out) > maxOut {
			return nil, fmt.Errorf("%s: its result is stored at too many places", c.Name)
		}
		data = le.AppendUint64(data, uint64(int64(c.Nr)))
		for _, a := range c.Args {
			data = le.AppendUint64(data, uint64(a))
		}
		data = le.AppendUint64(data, uint64(int64(c.May)))
		next := i + 1
		if c.IfZero != 0 {
			next = c.IfZero
		}
		data = le.AppendUint64(data, p.callAddr(next))
		var out [maxOut]uint64
		for j, s := range c.Out {
			out[j] = uint64(s.addr)
			if s.call >= 0 {
				out[j] = p.callAddr(s.call) + 8*uint64(1+s.arg)
			}
		}
		for _, a := range out {
			data = le.AppendUint64(data, a)
		}
	}
	return data, nil
}

// machineCode returns the interpreter of the table, which the assembler has
// put into our own program.
func machineCode() (text []byte, machine uint16, err error) {
	if elfMachine == 0 {
		return nil, 0, errors.New("programs of system calls cannot be made for processors of this kind")
	}
	start, end := code()
	size := uintptr(end) - uintptr(start)
	if size == 0 || size > dataOff {
		return nil, 0, errors.New("the linker moved the code of the interpreter")
	}
	return unsafe.Slice((*byte)(start), size), elfMachine, nil
}

// Open puts the program into a file in memory that can be executed by the path
// /proc/self/fd/N.
func (p *Program) Open(name string) (*os.File, error) {
	img, err := p.Image()
	if err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC|unix.MFD_ALLOW_SEALING)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all of them were executable
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(img)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
