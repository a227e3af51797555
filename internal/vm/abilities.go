package vm

import (
	"context"
	"os"

	"minimega/internal/errs"
)

// What only some machines can do, beyond those in engine.go. Callers ask by
// type assertion and answer NotSupported otherwise.
type (
	// Saver writes a machine to files from which another can go on.
	Saver interface {
		// Save pauses the guest and begins to write its disks as they are now,
		// then its memory and devices. It returns once that has begun. The
		// files get their names when all of them are complete; what had these
		// names is replaced then and not before. The guest stays paused.
		Save(ctx context.Context, to SaveFiles) error
		// Saved tells how far the last Save is; false when there was none.
		Saved() (SaveStatus, bool)
	}
	// SaveReader is an Engine that knows of the last save of a machine that
	// has ended, by its instance directory.
	SaveReader interface {
		Saved(dir string) (SaveStatus, bool)
	}
	// Hotplugger takes USB disks in and out.
	Hotplugger interface {
		// HotplugAdd plugs an image in. version is the USB version ("" means
		// 1.1), serial the serial number that the guest sees ("" for none).
		HotplugAdd(ctx context.Context, image, version, serial string) error
		// HotplugRemove pulls a disk out by its number.
		HotplugRemove(ctx context.Context, id int) error
		// Hotplugged lists what is plugged in, by number.
		Hotplugged() []HotplugDisk
	}
	// CDChanger has a drive for CDs.
	CDChanger interface {
		// ChangeCD puts an image in the place of what is in the drive; with an
		// empty path it only takes that out. Without force a guest may keep
		// its drive locked.
		ChangeCD(ctx context.Context, image string, force bool) error
	}
	// NetAdder takes network interfaces in while it runs.
	NetAdder interface {
		// AddNet plugs in an interface whose Tap and MAC are set, or changes
		// nothing.
		AddNet(ctx context.Context, n NetConfig) error
		// SettleNet tells what came of an AddNet that nobody saw the end of:
		// whether the interface is plugged in. If not, nothing of it is left.
		SettleNet(ctx context.Context, n NetConfig) (bool, error)
	}
	// Spaced lives in a network namespace of the host, where interfaces come
	// into being while it runs: nobody has to plug them in.
	Spaced interface {
		// Space opens the namespace. The caller closes it.
		Space(ctx context.Context) (*os.File, error)
	}
	// Threader knows which of its threads run the guest's processors.
	Threader interface {
		VCPUThreads(ctx context.Context) ([]int, error)
	}
)

// SaveFiles says where a machine is saved.
type SaveFiles struct {
	State string // memory and devices
	Disk  string // first disk; see DiskPath for the others
}

// DiskPath is where disk i goes: Disk, Disk.1, Disk.1.2 and so on.
func (f SaveFiles) DiskPath(i int) string {
	path := f.Disk
	for n := 1; n <= i; n++ {
		path += "." + u(uint64(n))
	}
	return path
}

// The words for how a save stands.
const (
	SaveActive    = "active"
	SaveCompleted = "completed"
	SaveFailed    = "failed"
)

// SaveStatus tells how far a save is.
type SaveStatus struct {
	Status  string  // one of the words above
	Percent float64 // 0 to 100
	Err     error   // of a failed one
}

// HotplugDisk is a USB disk that was plugged in.
type HotplugDisk struct {
	ID      int
	File    string
	Version string // as asked for
}

// NotSupported is what a machine of a type answers that lacks an ability.
func NotSupported(t Type, what string) error {
	return errs.AtStep(errs.New(errs.Unsupported, "not supported by %s", t), what)
}

// NoBonds is the answer to all who ask for a bond.
func NoBonds() error {
	return errs.New(errs.Unsupported, "interfaces of VMs cannot be bonded: bonds need Open vSwitch, and the network here is made of Linux bridges")
}
