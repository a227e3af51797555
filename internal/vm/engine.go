package vm

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"

	"minimega/pkg/vnc"
)

// Engine makes machines of one type. Engines join by one line in
// internal/daemon; nothing above them knows which there are.
type Engine interface {
	Type() Type
	// Check refuses what cannot work, before anything is made. It must not
	// change anything, and is called again for every machine of a launch.
	Check(ctx context.Context, c *Config) error
	// Launch makes the machine, paused at its first instruction. When it
	// fails, nothing that it made is left, and the error names the step and
	// quotes the engine's own words.
	Launch(ctx context.Context, s *Spec) (Machine, error)
}

// Spec is all that an engine needs to make one machine. Engines may fill in
// Config (SnapshotPath of disks), which is the machine's own copy.
type Spec struct {
	ID        int
	Name      string
	Namespace string
	Dir       string // instance directory, exists, mode 0700
	Config    *Config
	// Space is the network namespace of a Spacer's machine, with its interfaces
	// veth0, veth1 and so on in it. The caller keeps it.
	Space *os.File
	// VNCPort is the port of the screen that the machine had before, to be
	// taken again if it is free; 0 for any.
	VNCPort int
	Log     *slog.Logger
}

// Spacer is an Engine whose machines live in network namespaces of the host.
// Their ports go when they end.
type Spacer interface {
	// NewSpace makes the network namespace for a machine, which lasts as long as it is open or
	// used by a machine.
	NewSpace(ctx context.Context, s *Spec) (*os.File, error)
}

// Cleaner is an Engine whose machines leave more than processes with the
// instance directory on their command line, and files in it.
type Cleaner interface {
	// Clean ends and removes it.
	Clean(ctx context.Context, dir string) error
}

// Adopter is an Engine whose machines a later daemon can take over.
type Adopter interface {
	// Instance returns the instance directory that one of the engine's processes
	// has on its command line, or "" for a process that is none of it.
	Instance(args []string) string
	// Adopt takes over the process of s.Dir, which an earlier daemon launched.
	// A failed Adopt leaves it as it was.
	Adopt(ctx context.Context, s *Spec, pid int) (Machine, error)
	// Remains tells, from what lies in an instance directory, why a machine
	// ended that nobody watched: nil for an ordinary end, else its last words.
	Remains(dir string) error
}

// Machine is a made machine: a process that the engine started or adopted.
// Methods may be called at any time and by any goroutine; once Done is closed
// they fail with errs.State.
type Machine interface {
	Pid() int
	Start(ctx context.Context) error // run or run on
	Stop(ctx context.Context) error  // pause
	// Kill ends the process and returns when it is gone, at the latest
	// shortly after ctx ends, and then by force.
	Kill(ctx context.Context) error
	// Done is closed when the process has ended and been waited for.
	Done() <-chan struct{}
	// Err tells, after Done, why the process ended: nil for a shutdown by the
	// guest or by Kill, else its last words.
	Err() error
	// Close lets go of everything this side holds (sockets, listeners) but
	// leaves a running process alone, so that a later daemon can adopt it.
	Close() error
}

// What only some machines can do. Callers ask by type assertion and say
// ErrUnsupported otherwise.
type (
	// QMPer speaks QEMU's control protocol. The reply is QEMU's `{"return":…}`.
	QMPer interface {
		QMP(ctx context.Context, request json.RawMessage) (json.RawMessage, error)
	}
	// Screenshotter takes pictures: PNG, no side longer than max pixels (0: as is).
	Screenshotter interface {
		Screenshot(ctx context.Context, max int) ([]byte, error)
	}
	// Emulator is reached through TCP ports on the loopback interface: its
	// console's and, for Android's tools, adb's.
	Emulator interface {
		Ports() (console, adb int)
	}
	// Stater knows the state of the guest: Building before its first start,
	// Running or Paused.
	Stater interface {
		Status(ctx context.Context) (State, error)
	}
	// Consoler has a text console on a TCP port.
	Consoler interface {
		ConsolePort() int
	}
	// Displayer has a screen that speaks VNC.
	Displayer interface {
		VNC() *vnc.Proxy
	}
)
