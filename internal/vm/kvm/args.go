package kvm

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

// accel is how QEMU runs guest code.
type accel bool

const (
	withTCG accel = false
	withKVM accel = true
)

// argSpec is all that the command line depends on.
type argSpec struct {
	id        int
	dir       string
	config    *vm.Config
	accel     accel
	hugepages string // "" for none
	ahciDisk  string // device of a disk on AHCI: ide-drive, or ide-hd
}

// Layout of the PCI bus and of virtio-serial devices.
const (
	slotsPerBridge = 31
	portsPerDevice = 30
)

// argList collects arguments.
type argList struct {
	list []string
	bus  int // last PCI bridge made, 0 for none
	slot int // last slot taken on it
	serv int // last virtio-serial device made
}

func (a *argList) add(s ...string) { a.list = append(a.list, s...) }

func (a *argList) addf(flag, format string, args ...any) {
	a.list = append(a.list, flag, fmt.Sprintf(format, args...))
}

// args returns QEMU's command line before overrides, without the program's
// name. The order is
// part of the interface: overrides match on it. Only the accelerator and
// the sink for the serial port are ours, after the name.
func args(s argSpec) ([]string, error) {
	a := &argList{}
	a.machine(s)
	a.usb(s.config)
	a.tpm(s.config)
	a.serial(s)
	a.add("-pidfile", filepath.Join(s.dir, "qemu.pid"), "-k", "en-us")
	a.add("-cpu", cpuModel(s.config.CPU, s.accel))
	a.add("-net", "none", "-S")
	if s.config.MigratePath != "" {
		a.addf("-incoming", "exec:cat %s", shellQuote(s.config.MigratePath))
	}
	a.disks(s.config, s.ahciDisk)
	a.kernel(s.config)
	a.pci(s)
	if err := a.ports(s); err != nil {
		return nil, err
	}
	if s.hugepages != "" {
		a.add("-mem-path", s.hugepages)
	}
	a.add(s.config.QemuAppend...)
	if s.config.UUID != "" {
		a.add("-uuid", s.config.UUID)
	}
	return a.list, nil
}

// shellQuote writes a path for the shell that QEMU runs for "exec:". Usual
// paths stay as they are.
func shellQuote(path string) string {
	if !strings.ContainsFunc(path, shellActive) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func shellActive(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r > 0x7f:
		return false
	}
	return !strings.ContainsRune("._-/+:=@%", r)
}

// opt doubles the commas of a value inside a QEMU option.
func opt(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func cpuModel(cpu string, a accel) string {
	model, features, more := strings.Cut(cpu, ",")
	if model != "host" || a == withKVM {
		return cpu
	}
	if more { // "max" is the nearest to the host's
		return "max," + features
	}
	return "max"
}

func (a *argList) machine(s argSpec) {
	c := s.config
	a.add("-name", strconv.Itoa(s.id))
	if s.accel == withKVM {
		a.add("-accel", "kvm")
	} else {
		a.add("-accel", "tcg,thread=multi")
	}
	if !mentionsSerial(c) {
		// -nographic puts the first serial port on stdout, which is a file
		// here: a guest could fill the host's disk. The port stays, its output goes.
		a.add("-serial", "null", "-monitor", "none")
	}
	if c.Machine != "" {
		a.add("-M", c.Machine)
	}
	a.add("-m", strconv.FormatUint(c.Memory, 10), "-nographic")
	a.addf("-vnc", "unix:%s", opt(filepath.Join(s.dir, "vnc")))
	smp := strconv.FormatUint(c.VCPUs, 10)
	for _, t := range []struct {
		name string
		n    uint64
	}{{"cores", c.Cores}, {"threads", c.Threads}, {"sockets", c.Sockets}} {
		if t.n > 0 {
			smp += fmt.Sprintf(",%s=%d", t.name, t.n)
		}
	}
	a.add("-smp", smp)
	a.addf("-qmp", "unix:%s,server=on", opt(filepath.Join(s.dir, "qmp")))
	vga := c.Vga
	if vga == "" {
		vga = "std"
	}
	a.add("-vga", vga, "-rtc", "clock=vm,base=utc")
}

// mentionsSerial reports whether the user deals with serial ports or the
// monitor; one more port would take the place of the first then.
func mentionsSerial(c *vm.Config) bool {
	own := func(s string) bool { return strings.Contains(s, "serial") || strings.Contains(s, "monitor") }
	return c.SerialPorts > 0 || slices.ContainsFunc(c.QemuAppend, own) ||
		slices.ContainsFunc(c.QemuOverride, func(o vm.Override) bool { return own(o.Match) || own(o.Repl) })
}

func (a *argList) usb(c *vm.Config) {
	controller := "usb-ehci,id=ehci"
	if c.UsbUseXHCI {
		controller = "qemu-xhci,id=xhci"
	}
	a.add("-usb", "-device", controller, "-device", "usb-tablet,bus=usb-bus.0")
}

func (a *argList) tpm(c *vm.Config) {
	if c.TpmSocketPath == "" {
		return
	}
	a.addf("-chardev", "socket,id=chrtpm,path=%s", opt(c.TpmSocketPath))
	a.add("-tpmdev", "emulator,id=tpm0,chardev=chrtpm", "-device", "tpm-tis,tpmdev=tpm0")
}

func (a *argList) serial(s argSpec) {
	for i := range s.config.SerialPorts {
		a.addf("-chardev", "socket,id=charserial%d,path=%s,server=on,wait=off", i, opt(fmt.Sprintf("%s/serial%d", s.dir, i)))
		a.addf("-device", "isa-serial,chardev=charserial%d,id=serial%d", i, i)
	}
}

// disks adds the drive for CDs, which is always there so that one can be put
// in later, and the disks. Their format is left to QEMU on purpose: it then
// keeps a guest from writing the header of another format, with a backing
// file of its choice, to the start of a raw disk. Check has seen to it that
// what it finds now is an image.
func (a *argList) disks(c *vm.Config, ahciDisk string) {
	if c.CdromPath != "" {
		a.addf("-drive", "file=%s,media=cdrom", opt(c.CdromPath))
		a.add("-boot", "once=d")
	} else {
		a.add("-drive", "media=cdrom")
	}
	count := map[string]int{}
	for _, d := range c.Disks {
		path := d.Path
		if d.SnapshotPath != "" {
			path = d.SnapshotPath
		}
		iface, cache := diskDefaults(d, c.Snapshot)
		n := count[iface]
		count[iface]++
		switch iface {
		case "ahci":
			if n == 0 {
				a.add("-device", "ahci,id=ahci")
			}
			a.addf("-device", "%s,drive=ahci-drive-%d,bus=ahci.%d", ahciDisk, n, n)
			a.addf("-drive", "id=ahci-drive-%d,file=%s,media=disk,if=none,cache=%s", n, opt(path), cache)
		case "scsi": // no PC of QEMU 2.12 or newer brings the controller that if=scsi needs
			if n == 0 {
				a.add("-device", "lsi53c895a,id=scsi")
			}
			a.addf("-device", "scsi-hd,drive=scsi-drive-%d,bus=scsi.0", n)
			a.addf("-drive", "id=scsi-drive-%d,file=%s,media=disk,if=none,cache=%s", n, opt(path), cache)
		default:
			a.addf("-drive", "file=%s,media=disk,if=%s,cache=%s", opt(path), iface, cache)
		}
	}
}

func diskDefaults(d vm.DiskConfig, snapshot bool) (iface, cache string) {
	iface, cache = d.Interface, d.Cache
	if iface == "" {
		iface = "ide"
	}
	switch {
	case cache != "":
	case snapshot:
		cache = "unsafe"
	default:
		cache = "writeback"
	}
	return iface, cache
}

func (a *argList) kernel(c *vm.Config) {
	if c.KernelPath != "" {
		a.add("-kernel", c.KernelPath)
	}
	if c.InitrdPath != "" {
		a.add("-initrd", c.InitrdPath)
	}
	if len(c.Append) > 0 {
		a.add("-append", strings.Join(c.Append, " "))
	}
}

// address takes the next slot, on a new bridge if need be.
func (a *argList) address() string {
	if a.bus == 0 || a.slot == slotsPerBridge {
		a.bus++
		a.slot = 0
		a.addf("-device", "pci-bridge,id=pci.%d,chassis_nr=%d", a.bus, a.bus)
	}
	a.slot++
	return fmt.Sprintf("bus=pci.%d,addr=0x%x", a.bus, a.slot)
}

func (a *argList) pci(s argSpec) {
	c := s.config
	// The first bridge is there even if it stays empty: room for hot-plug.
	a.bus = 1
	a.add("-device", "pci-bridge,id=pci.1,chassis_nr=1")
	for _, n := range c.Networks {
		addr := a.address()
		driver := n.Driver
		if driver == "" {
			driver = vm.DefaultDriver
		}
		a.addf("-netdev", "tap,id=%s,script=no,ifname=%s,downscript=no", n.Tap, n.Tap)
		a.addf("-device", "driver=%s,netdev=%s,mac=%s,%s", driver, n.Tap, n.MAC, addr)
	}
	if c.Backchannel {
		id := a.virtioSerial()
		a.addf("-chardev", "socket,id=charvserialCC,path=%s,server=on,wait=off", opt(filepath.Join(s.dir, "cc")))
		a.addf("-device", "virtserialport,bus=%s.0,chardev=charvserialCC,id=charvserialCC,name=cc", id)
	}
	if c.BidirectionalCopyPaste {
		id := a.virtioSerial()
		a.add("-chardev", "qemu-vdagent,id=vdagent,clipboard=on")
		a.addf("-device", "virtserialport,bus=%s.0,chardev=vdagent,name=com.redhat.spice.0", id)
	}
}

// virtioSerial adds a device that carries ports, and returns its id.
func (a *argList) virtioSerial() string {
	addr := a.address()
	id := fmt.Sprintf("virtio-serial%d", a.serv)
	a.serv++
	a.addf("-device", "virtio-serial-pci,id=%s,%s", id, addr)
	return id
}

// ports adds the virtio ports that the user asked for.
func (a *argList) ports(s argSpec) error {
	names, err := portNames(s.config.VirtioPorts)
	if err != nil {
		return err
	}
	var device string
	for i, name := range names {
		if i%portsPerDevice == 0 {
			device = a.virtioSerial()
		}
		a.addf("-chardev", "socket,id=charvserial%d,path=%s,server=on,wait=off", i, opt(fmt.Sprintf("%s/virtio-serial%d", s.dir, i)))
		a.addf("-device", "virtserialport,bus=%s.0,chardev=charvserial%d,id=charvserial%d,name=%s", device, i, i, name)
	}
	return nil
}

const maxPorts = 900 // devices fill one PCI bridge

// portNames reads the field virtio-ports: a number, or names.
func portNames(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil {
		if n > maxPorts {
			return nil, errs.New(errs.Invalid, "%d virtio ports are too many, at most %d", n, maxPorts)
		}
		names := make([]string, n)
		for i := range names {
			names[i] = fmt.Sprintf("virtio-serial%d", i)
		}
		return names, nil
	}
	names := strings.Split(s, ",")
	for i := range names {
		if names[i] = strings.TrimSpace(names[i]); names[i] == "" {
			return nil, errs.New(errs.Invalid, "empty name in virtio-ports %q", s)
		}
	}
	return names, nil
}

// override applies the user's replacements to the line as one string.
func override(list []string, overrides []vm.Override) []string {
	if len(overrides) == 0 {
		return list
	}
	line := Join(list)
	for _, o := range overrides {
		if o.Match != "" {
			line = strings.ReplaceAll(line, o.Match, o.Repl)
		}
	}
	return Split(line)
}

// Join makes one line of arguments, the form that overrides are applied to.
// An argument with white space, or an empty one, stands in double quotes;
// a double quote or backslash within those is escaped with a backslash.
func Join(list []string) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = s
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || r == '"' }) {
			words[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
		}
	}
	return strings.Join(words, " ")
}

// Split undoes Join: it splits at white space outside double quotes.
func Split(line string) []string {
	var list []string
	var word strings.Builder
	inWord, quoted, escaped := false, false, false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, inWord = !quoted, true
		case !quoted && unicode.IsSpace(r):
			if inWord {
				list = append(list, word.String())
				word.Reset()
			}
			inWord = false
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if inWord {
		list = append(list, word.String())
	}
	return list
}
