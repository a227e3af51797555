package vm

import (
	"slices"
	"strings"
	"sync"

	"minimega/internal/errs"
)

// Fields returns the table of `vm config`, in the order in which a
// configuration is written to disk.
func Fields() []*Field { return fieldTable() }

var fieldTable = sync.OnceValue(func() []*Field {
	return slices.Concat(commonFields(), kvmFields(), containerFields(), androidFields())
})

func commonFields() []*Field {
	colocate := text("colocate", "Colocate", "Launch on the host where the VM of this name is.", NoPath, func(c *Config) *string { return &c.Colocate })
	colocate.set = func(c *Config, w []string) error {
		if c.Schedule != "" && strings.Join(w, "") != "" {
			return errs.New(errs.Invalid, "cannot specify colocate and schedule in the same config")
		}
		c.Colocate = strings.Join(w, " ")
		return nil
	}
	schedule := text("schedule", "Schedule host", "Launch on this host of the namespace.", NoPath, func(c *Config) *string { return &c.Schedule })
	schedule.set = func(c *Config, w []string) error {
		if c.Colocate != "" && strings.Join(w, "") != "" {
			return errs.New(errs.Invalid, "cannot specify schedule and colocate in the same config")
		}
		c.Schedule = strings.Join(w, " ")
		return nil
	}
	return []*Field{
		text("uuid", "UUID", "UUID of the VM; random when empty.", NoPath, func(c *Config) *string { return &c.UUID }),
		number("vcpus", "VCPUs", "Number of virtual CPUs.", func(c *Config) *uint64 { return &c.VCPUs }),
		number("memory", "Memory", "Memory in MiB.", func(c *Config) *uint64 { return &c.Memory }),
		flag("snapshot", "Snapshot", "Leave disks or file system as they are and write to a copy that goes with the VM.", func(c *Config) *bool { return &c.Snapshot }),
		schedule,
		colocate,
		signed("coschedule", "Coschedule limit", "Most other VMs that may share the host; -1 for any number, 0 for none.", func(c *Config) *int64 { return &c.Coschedule }),
		flag("backchannel", "Backchannel", "Give the VM a port for the agent that needs no network.", func(c *Config) *bool { return &c.Backchannel }),
		networksField(),
		bondsField(),
		dict("tags", "Tags", "Key-value pairs that `vm info`, filters and the agent can see.", func(c *Config) *map[string]string { return &c.Tags }),
	}
}

// networksField has no plain setter: a netspec needs QEMU's device list and
// the VLAN aliases, which the command layer brings.
func networksField() *Field {
	return &Field{Name: "networks", Label: "Networks", Shape: Many,
		Help: "Network interfaces, each `[bridge,]vlan[,mac][,driver][,qinq]`.",
		get: func(c *Config) []string {
			var w []string
			for _, n := range c.Networks {
				w = append(w, n.String())
			}
			return w
		},
		set: func(c *Config, w []string) error {
			if len(w) > 0 {
				return errs.New(errs.Internal, "networks are set by SetNetworks")
			}
			c.Networks = nil
			return nil
		}}
}

func bondsField() *Field {
	return &Field{Name: "bonds", Label: "Bonds", Shape: Many,
		Help: "Bonds of interfaces, each `idx,idx[,…],mode[,lacp][,no-lacp-fallback][,qinq][,name]`.",
		get: func(c *Config) []string {
			var w []string
			for _, b := range c.Bonds {
				w = append(w, b.String())
			}
			return w
		},
		set: func(c *Config, w []string) error {
			var bonds []BondConfig
			for _, s := range w {
				b, err := ParseBond(s, len(c.Networks))
				if err != nil {
					return err
				}
				bonds = append(bonds, b)
			}
			c.Bonds = bonds
			return nil
		}}
}

func kvmFields() []*Field {
	k := KVM
	both := []Type{KVM, Android}
	fs := []*Field{
		text("qemu", "QEMU Path", "QEMU binary: a name in $PATH or a path.", LookupPath, func(c *Config) *string { return &c.QemuPath }, both...),
		text("kernel", "Kernel Path", "Kernel to boot instead of a disk.", FilesPath, func(c *Config) *string { return &c.KernelPath }, k),
		text("initrd", "Initrd Path", "Initial ram disk for the kernel.", FilesPath, func(c *Config) *string { return &c.InitrdPath }, k),
		text("cdrom", "CDROM Path", "CD image; the VM boots from it once.", FilesPath, func(c *Config) *string { return &c.CdromPath }, k),
		text("state", "State Path", "Saved state (`vm save`) to start from.", FilesPath, func(c *Config) *string { return &c.MigratePath }, k),
		text("cpu", "CPU", "CPU model, one of `qemu -cpu help`; `host` passes the host's through.", NoPath, func(c *Config) *string { return &c.CPU }, k),
		number("sockets", "Sockets", "CPU sockets; 0 leaves it to QEMU.", func(c *Config) *uint64 { return &c.Sockets }, k),
		number("cores", "Cores", "Cores per socket; 0 leaves it to QEMU.", func(c *Config) *uint64 { return &c.Cores }, k),
		number("threads", "Threads", "Threads per core; 0 leaves it to QEMU.", func(c *Config) *uint64 { return &c.Threads }, k),
		text("machine", "Machine", "Machine type, one of `qemu -M help`.", NoPath, func(c *Config) *string { return &c.Machine }, k),
		number("serial-ports", "Serial Ports", "Number of serial ports, sockets `serialN` in the VM's directory.", func(c *Config) *uint64 { return &c.SerialPorts }, k),
		text("virtio-ports", "Virtio-Serial Ports", "Virtio-serial ports: a number, or names joined by commas.", NoPath, func(c *Config) *string { return &c.VirtioPorts }, k),
		text("vga", "VGA", "Graphics card, as QEMU's -vga.", NoPath, func(c *Config) *string { return &c.Vga }, k),
		list("append", "Kernel Append", "Words for the kernel command line.", func(c *Config) *[]string { return &c.Append }, k),
		disksField(),
		flag("usb-use-xhci", "Usb Use XHCI", "USB 3 controller instead of USB 2.", func(c *Config) *bool { return &c.UsbUseXHCI }, k),
		text("tpm-socket", "TPM Socket", "Socket of a software TPM.", FilesPath, func(c *Config) *string { return &c.TpmSocketPath }, k),
		flag("bidirectional-copy-paste", "Bidirectional Copy Paste", "Share the clipboard over VNC both ways (QEMU 6.1 or newer, and an agent in the guest).", func(c *Config) *bool { return &c.BidirectionalCopyPaste }, k),
		list("qemu-append", "QEMU Append", "Words for QEMU's command line.", func(c *Config) *[]string { return &c.QemuAppend }, both...),
		overrideField(),
	}
	return fs
}

func disksField() *Field {
	return &Field{Name: "disks", Label: "Disks", Shape: Many, Types: []Type{KVM}, Path: FilesPath,
		Help: "Disks, each `path[,interface][,cache]`.",
		get: func(c *Config) []string {
			var w []string
			for _, d := range c.Disks {
				w = append(w, d.String())
			}
			return w
		},
		set: func(c *Config, w []string) error {
			disks, err := ParseDisks(w, func(p string) (string, error) { return p, nil })
			if err == nil {
				c.Disks = disks
			}
			return err
		}}
}

func overrideField() *Field {
	return &Field{Name: "qemu-override", Types: []Type{KVM, Android},
		Help: "Replace text in QEMU's command line; overrides add up.",
		get: func(c *Config) []string {
			var w []string
			for _, o := range c.QemuOverride {
				w = append(w, o.Match, o.Repl)
			}
			return w
		},
		set: func(c *Config, w []string) error {
			if len(w) == 0 {
				c.QemuOverride = nil
				return nil
			}
			if len(w) != 2 || w[0] == "" {
				return errs.New(errs.Invalid, "qemu-override: expected the text to find and its replacement")
			}
			c.QemuOverride = append(slices.Clip(c.QemuOverride), Override{w[0], w[1]})
			return nil
		}}
}

func containerFields() []*Field {
	t := Container
	return []*Field{
		text("filesystem", "Filesystem Path", "Root file system: a directory, an archive or an image.", FilesPath, func(c *Config) *string { return &c.FilesystemPath }, t),
		text("hostname", "Hostname", "Host name; the VM's name when empty.", NoPath, func(c *Config) *string { return &c.Hostname }, t),
		list("init", "Init", "First program and its arguments; what an image names unless set.", func(c *Config) *[]string { return &c.Init }, t),
		text("preinit", "Pre-init", "Program that runs as root in the container's namespaces before init.", NoPath, func(c *Config) *string { return &c.Preinit }, t),
		flag("userns", "User namespace", "Give the container users of its own: its root is an ordinary user of the host.", func(c *Config) *bool { return &c.UserNS }, t),
		number("fifos", "FIFOs", "Number of named pipes shared with the host.", func(c *Config) *uint64 { return &c.Fifos }, t),
		dict("volume", "Volumes", "Directories of the host: path inside the container, path on the host.", func(c *Config) *map[string]string { return &c.VolumePaths }, t),
	}
}

func androidFields() []*Field {
	t := Android
	return []*Field{
		text("android-sdk", "SDK Path", "Android SDK.", NoPath, func(c *Config) *string { return &c.SDKPath }, t),
		text("android-emulator", "Emulator Path", "Emulator binary.", NoPath, func(c *Config) *string { return &c.EmulatorPath }, t),
		text("android-adb", "ADB Path", "adb binary.", NoPath, func(c *Config) *string { return &c.ADBPath }, t),
		text("android-avd", "AVD Name", "Android virtual device to run.", NoPath, func(c *Config) *string { return &c.AVDName }, t),
		text("android-avd-dir", "AVD Dir", "Directory of the virtual devices.", NoPath, func(c *Config) *string { return &c.AVDDir }, t),
		flag("android-no-window", "No Window", "Run without a window.", func(c *Config) *bool { return &c.NoWindow }, t),
		consolePortField(),
		list("android-extra-args", "Extra Args", "Further words for the emulator.", func(c *Config) *[]string { return &c.ExtraArgs }, t),
		flag("android-writable-system", "Writable System", "Mount /system writable.", func(c *Config) *bool { return &c.WritableSystem }, t),
	}
}

func consolePortField() *Field {
	f := number("android-console-base-port", "Console Base Port", "First console port, even, 5554 to 5680; 0 for any.", func(c *Config) *uint64 { return &c.ConsoleBasePort }, Android)
	set := f.set
	f.set = func(c *Config, w []string) error {
		trial := *c
		if err := set(&trial, w); err != nil {
			return err
		}
		if p := trial.ConsoleBasePort; p != 0 && (p%2 != 0 || p < 5554 || p > 5680) {
			return errs.New(errs.Invalid, "android-console-base-port: %d is not 0 or an even number from 5554 to 5680", p)
		}
		c.ConsoleBasePort = trial.ConsoleBasePort
		return nil
	}
	return f
}
