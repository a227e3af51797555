package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// Commands of a software TPM's control channel (QEMU's docs/specs/tpm.rst and
// swtpm_ioctls(3)): a number of four bytes, big-endian as all others, and its
// request. Each is answered by a result, 0 for success, and what was asked for.
const (
	tpmGetCapability  = 0x01
	tpmInit           = 0x02
	tpmShutdown       = 0x03
	tpmGetEstablished = 0x04
	tpmSetLocality    = 0x05
	tpmResetEstab     = 0x0b
	tpmStop           = 0x0e
	tpmSetDataFD      = 0x10
	tpmSetBufferSize  = 0x11
)

// tpmCommand is a command of the control channel.
type tpmCommand struct {
	name    string
	request int    // bytes after the number
	answer  []byte // to send
}

const tpmBuffer = 4096

var tpmCommands = map[uint32]tpmCommand{
	tpmGetCapability:  {"capability", 0, binary.BigEndian.AppendUint64(nil, 1<<14-1)}, // all of the time; without a result
	tpmInit:           {"init", 4, make([]byte, 4)},
	tpmShutdown:       {"shutdown", 0, make([]byte, 4)},
	tpmGetEstablished: {"established", 0, make([]byte, 8)},
	tpmSetLocality:    {"locality", 4, make([]byte, 4)},
	tpmResetEstab:     {"reset", 4, make([]byte, 4)},
	tpmStop:           {"stop", 0, make([]byte, 4)},
	tpmSetDataFD:      {"datafd", 0, make([]byte, 4)},
	tpmSetBufferSize:  {"buffersize", 4, slices.Concat(make([]byte, 4), word(tpmBuffer), word(tpmBuffer), word(tpmBuffer))},
}

func word(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// standInTPM is a control socket behind which no TPM is: it answers what QEMU
// asks of it, and all that a guest asks with a failure.
type standInTPM struct {
	l       *net.UnixListener
	serving sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	seen  []string   // names of control commands, and "guest" for one of a guest's
	conns []io.Closer
}

// cmdTPM is a stand-in for swtpm:
//
//	tpm serve SOCKET     listen there until the end of the script
//	tpm deaf SOCKET      leave a socket at which nobody listens any more
//	tpm saw COMMAND...   wait until these have come since the last time
func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	switch args[0] {
	case "serve":
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[1]), Net: "unix"})
		ts.Check(err)
		s := &standInTPM{l: l}
		s.serving.Go(s.accept)
		ts.Defer(s.close)
		theHost(ts).tpm = s
	case "deaf":
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ts.MkAbs(args[1]), Net: "unix"})
		ts.Check(err)
		l.SetUnlinkOnClose(false)
		ts.Check(l.Close())
	case "saw":
		if left := theHost(ts).tpm.await(args[1:]); len(left) > 0 {
			ts.Fatalf("the TPM was not told: %q", left)
		}
	default:
		ts.Fatalf("tpm %s?", args[0])
	}
}

// await waits for commands and forgets what has come; it returns those that have not.
func (s *standInTPM) await(want []string) (left []string) {
	soon(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		left = slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(s.seen, w) })
		if len(left) == 0 {
			s.seen = nil
		}
		return len(left) == 0
	})
	return left
}

func (s *standInTPM) note(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, name)
}

// keep has a connection closed at the end.
func (s *standInTPM) keep(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
}

func (s *standInTPM) close() {
	_ = s.l.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *standInTPM) accept() {
	for {
		c, err := s.l.AcceptUnix()
		if err != nil {
			return
		}
		s.keep(c)
		s.serving.Go(func() {
			defer c.Close()
			if err := s.control(c); err != nil && !errors.Is(err, io.EOF) {
				s.note(err.Error())
			}
		})
	}
}

// control answers one QEMU.
func (s *standInTPM) control(c *net.UnixConn) error {
	for {
		number, data, err := readCommand(c)
		if data != nil {
			s.keep(data)
			s.serving.Go(func() { s.guest(data) })
		}
		if err != nil {
			return err
		}
		command, ok := tpmCommands[number]
		if !ok {
			return fmt.Errorf("command %#x", number)
		}
		if _, err := io.CopyN(io.Discard, c, int64(command.request)); err != nil {
			return err
		}
		s.note(command.name)
		if _, err := c.Write(command.answer); err != nil {
			return err
		}
	}
}

// readCommand reads the number of a command, and a socket that comes with it.
func readCommand(c *net.UnixConn) (number uint32, data net.Conn, err error) {
	head, rights := make([]byte, 4), make([]byte, syscall.CmsgSpace(4))
	n, rn, _, _, err := c.ReadMsgUnix(head, rights)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, nil, err
	}
	if messages, err := syscall.ParseSocketControlMessage(rights[:rn]); err == nil && len(messages) == 1 {
		if fds, err := syscall.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			f := os.NewFile(uintptr(fds[0]), "data")
			data, err = net.FileConn(f)
			if err = errors.Join(err, f.Close()); err != nil {
				return 0, data, err
			}
		}
	}
	_, err = io.ReadFull(c, head[n:])
	return binary.BigEndian.Uint32(head), data, err
}

// guest answers what comes from the machine: commands of a TPM 2.0, which begin
// with a tag, a length and a code.
func (s *standInTPM) guest(c net.Conn) {
	defer c.Close()
	head := make([]byte, 10)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		length := binary.BigEndian.Uint32(head[2:])
		if length < 10 || length > tpmBuffer {
			s.note(fmt.Sprintf("a command of %d bytes", length))
			return
		}
		if _, err := io.CopyN(io.Discard, c, int64(length)-10); err != nil {
			return
		}
		const startup, failure = 0x144, 0x101 // TPM2_Startup, TPM_RC_FAILURE
		if binary.BigEndian.Uint32(head[6:]) == startup {
			s.note("guest")
		}
		answer := slices.Concat([]byte{0x80, 0x01}, word(10), word(failure))
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
