// Package vm owns the VMs of this host: their configuration, life cycle and facts.
package vm

import (
	"maps"
	"slices"
)

// Type is the kind of a VM. The numbers are part of the JSON of `vm info`.
type Type int

// The types.
const (
	KVM Type = iota + 1
	Container
	Android
)

var typeNames = map[Type]string{KVM: "kvm", Container: "container", Android: "android"}

// String returns the word that `vm launch` takes.
func (t Type) String() string { return typeNames[t] }

// Config describes a VM before its launch. Its fields are those of `vm
// config`; JSON names are part of the interface. A Config is a value: Clone
// before changing a shared one.
type Config struct {
	UUID        string
	VCPUs       uint64
	Memory      uint64 // MiB
	Snapshot    bool
	Schedule    string // host, "" for any
	Colocate    string // name of a VM, "" for none
	Coschedule  int64  // most other VMs on the same host, -1 for any number
	Backchannel bool
	Networks    []NetConfig
	Bonds       []BondConfig
	Tags        map[string]string

	KVMConfig
	ContainerConfig
	AndroidConfig
}

// KVMConfig holds what only a QEMU machine has. Paths are absolute unless they
// are to be found in $PATH.
type KVMConfig struct {
	QemuPath               string
	KernelPath             string
	InitrdPath             string
	CdromPath              string
	MigratePath            string // saved state to start from
	CPU                    string
	Sockets, Cores         uint64
	Threads                uint64
	Machine                string
	SerialPorts            uint64
	VirtioPorts            string // a number, or names joined by commas
	Vga                    string
	Append                 []string
	Disks                  []DiskConfig
	UsbUseXHCI             bool
	TpmSocketPath          string
	BidirectionalCopyPaste bool
	QemuAppend             []string
	QemuOverride           []Override
}

// Override is a literal substring replacement on the QEMU command line.
type Override struct{ Match, Repl string }

// ContainerConfig holds what only a container has.
type ContainerConfig struct {
	FilesystemPath string
	Hostname       string
	Init           []string
	Preinit        string
	UserNS         bool
	Fifos          uint64
	VolumePaths    map[string]string // path inside: path on the host
}

// AndroidConfig holds what only an Android emulator has.
type AndroidConfig struct {
	SDKPath, EmulatorPath, ADBPath string
	AVDName, AVDDir                string
	NoWindow                       bool
	ConsoleBasePort                uint64
	ExtraArgs                      []string
	WritableSystem                 bool
}

// NetConfig is one network interface, see ParseNet.
type NetConfig struct {
	Alias  string // VLAN as typed, when it is not a number
	VLAN   int    // 0-4095, or Disconnected
	Bridge string
	Tap    string // "" before launch
	MAC    string // "" before launch means: make one
	Driver string
	IP4    string // as last seen on the wire
	IP6    string
	QinQ   bool
	RxRate float64 // MB/s
	TxRate float64
	Raw    string // as typed
}

// DiskConfig is one disk, see ParseDisk.
type DiskConfig struct {
	Path         string
	SnapshotPath string // overlay that is written instead of Path, once launched
	Interface    string
	Cache        string
	Raw          string
}

// BondConfig joins interfaces of a VM, see ParseBond.
type BondConfig struct {
	Name       string
	Mode       string
	LACP       string
	Fallback   bool
	QinQ       bool
	Interfaces []int
	Bridge     string
	VLAN       int
	Raw        string
}

// Disconnected is the VLAN of an interface that is on none.
const Disconnected = -1

// Defaults that the printed forms leave out.
const (
	DefaultBridge = "mega_bridge"
	DefaultDriver = "e1000"
	DefaultQemu   = "kvm"
)

// NewConfig returns the defaults.
func NewConfig() *Config {
	return &Config{
		VCPUs: 1, Memory: 2048, Snapshot: true, Coschedule: -1, Backchannel: true,
		Tags:            map[string]string{},
		KVMConfig:       KVMConfig{QemuPath: DefaultQemu, CPU: "host", Vga: "std", UsbUseXHCI: true},
		ContainerConfig: ContainerConfig{Init: []string{"/init"}, VolumePaths: map[string]string{}},
		AndroidConfig:   AndroidConfig{NoWindow: true},
	}
}

// Clone returns a copy that shares nothing.
func (c *Config) Clone() *Config {
	n := *c
	n.Networks = slices.Clone(c.Networks)
	n.Bonds = slices.Clone(c.Bonds)
	for i := range n.Bonds {
		n.Bonds[i].Interfaces = slices.Clone(n.Bonds[i].Interfaces)
	}
	n.Tags = maps.Clone(c.Tags)
	n.Append = slices.Clone(c.Append)
	n.Disks = slices.Clone(c.Disks)
	n.QemuAppend = slices.Clone(c.QemuAppend)
	n.QemuOverride = slices.Clone(c.QemuOverride)
	n.Init = slices.Clone(c.Init)
	n.VolumePaths = maps.Clone(c.VolumePaths)
	n.ExtraArgs = slices.Clone(c.ExtraArgs)
	return &n
}
