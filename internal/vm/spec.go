package vm

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"minimega/internal/errs"
)

// Interfaces and caches that a diskspec may name.
var (
	DiskInterfaces = []string{"ahci", "ide", "scsi", "sd", "mtd", "floppy", "pflash", "virtio"}
	DiskCaches     = []string{"none", "writeback", "unsafe", "directsync", "writethrough"}
	BondModes      = []string{"active-backup", "balance-slb", "balance-tcp"}
	LACPModes      = []string{"active", "passive", "off"}
)

// ParseNet reads a netspec, `[bridge,]vlan[,mac][,driver][,qinq]`. isDriver
// says whether a word names a network device of QEMU. A VLAN that is not a
// number becomes Alias, to be resolved by the owner of the aliases.
func ParseNet(spec string, isDriver func(string) bool) (NetConfig, error) {
	n := NetConfig{Bridge: DefaultBridge, Driver: DefaultDriver, Raw: spec}
	fields := strings.Split(spec, ",")
	last := func() string { return fields[len(fields)-1] }
	drop := func() { fields = fields[:len(fields)-1] }

	if len(fields) > 1 && strings.EqualFold(last(), "qinq") {
		n.QinQ = true
		drop()
	}
	if len(fields) > 1 && isDriver(last()) {
		n.Driver = last()
		drop()
	}
	if len(fields) > 1 {
		if mac, err := net.ParseMAC(last()); err == nil && len(mac) == 6 {
			n.MAC = mac.String()
			drop()
		}
	}
	switch len(fields) {
	case 1:
	case 2:
		n.Bridge = fields[0]
	default:
		return n, errs.New(errs.Invalid, "malformed netspec: %q: `%s` is no MAC address, no network device of this QEMU, and not `qinq` (write [bridge,]vlan[,mac][,driver][,qinq])", spec, last())
	}
	if n.Bridge == "" {
		return n, errs.New(errs.Invalid, "malformed netspec: %q: empty bridge name", spec)
	}
	return n, n.setVLAN(last())
}

// setVLAN takes a number or an alias.
func (n *NetConfig) setVLAN(s string) error {
	if s == "" {
		return errs.New(errs.Invalid, "VLAN must be non-empty string")
	}
	v, err := strconv.Atoi(s)
	if err != nil {
		n.Alias = s
		return nil
	}
	if v < 0 || v > 4095 {
		return errs.New(errs.Invalid, "invalid VLAN (0 <= vlan < 4096): %s", s)
	}
	n.Alias, n.VLAN = "", v
	return nil
}

// String prints the netspec without what is default.
func (n NetConfig) String() string {
	var parts []string
	if n.Bridge != DefaultBridge && n.Bridge != "" {
		parts = append(parts, n.Bridge)
	}
	if n.Alias != "" {
		parts = append(parts, n.Alias)
	} else {
		parts = append(parts, strconv.Itoa(n.VLAN))
	}
	if n.MAC != "" {
		parts = append(parts, n.MAC)
	}
	if n.Driver != DefaultDriver && n.Driver != "" {
		parts = append(parts, n.Driver)
	}
	if n.QinQ {
		parts = append(parts, "qinq")
	}
	return strings.Join(parts, ",")
}

// ParseDisk reads a diskspec, `path[,interface][,cache]`. Interface and Cache
// stay empty when left out; what they mean then depends on `snapshot`.
func ParseDisk(spec string) (DiskConfig, error) {
	d := DiskConfig{Raw: spec}
	fields := strings.Split(spec, ",")
	if fields[0] == "" || len(fields) > 3 {
		return d, malformedDisk(spec, "write path[,interface][,cache]; a path cannot hold a comma")
	}
	d.Path = fields[0]
	for _, f := range fields[1:] {
		switch {
		case slices.Contains(DiskInterfaces, f) && d.Interface == "" && d.Cache == "":
			d.Interface = f
		case slices.Contains(DiskCaches, f) && d.Cache == "":
			d.Cache = f
		default:
			return d, malformedDisk(spec, fmt.Sprintf("`%s` is neither an interface (%s) nor a cache mode (%s), or stands in the wrong place",
				f, strings.Join(DiskInterfaces, " "), strings.Join(DiskCaches, " ")))
		}
	}
	return d, nil
}

func malformedDisk(spec, why string) error {
	return errs.New(errs.Invalid, "malformed diskspec: %q: %s", spec, why)
}

// String prints `path[,interface][,cache]`.
func (d DiskConfig) String() string {
	s := d.Path
	if d.Interface != "" {
		s += "," + d.Interface
	}
	if d.Cache != "" {
		s += "," + d.Cache
	}
	return s
}

// ParseDisks reads diskspecs, each path made absolute by abs, and refuses a
// path that comes twice.
func ParseDisks(specs []string, abs func(string) (string, error)) ([]DiskConfig, error) {
	var disks []DiskConfig
	seen := map[string]bool{}
	for _, s := range specs {
		d, err := ParseDisk(s)
		if err != nil {
			return nil, err
		}
		if d.Path, err = abs(d.Path); err != nil {
			return nil, err
		}
		if seen[d.Path] {
			return nil, errs.New(errs.Invalid, "disk conflict: %s", d.Path)
		}
		seen[d.Path] = true
		disks = append(disks, d)
	}
	return disks, nil
}

// ParseBond reads a bondspec, `idx,idx[,…],mode[,lacp][,no-lacp-fallback][,qinq][,name]`.
// networks is the number of interfaces that there are to join.
func ParseBond(spec string, networks int) (BondConfig, error) {
	b := BondConfig{LACP: "active", Fallback: true, Raw: spec}
	bad := func(why string) (BondConfig, error) {
		return b, errs.New(errs.Invalid, "malformed bondspec: %q: %s", spec, why)
	}
	fields := strings.Split(spec, ",")
	for len(fields) > 0 {
		i, err := strconv.Atoi(fields[0])
		if err != nil {
			break
		}
		if i < 0 || i >= networks {
			return bad(fmt.Sprintf("interface %d does not exist, the VM has %d", i, networks))
		}
		b.Interfaces = append(b.Interfaces, i)
		fields = fields[1:]
	}
	if len(b.Interfaces) < 2 {
		return bad("at least two interface indexes come first")
	}
	if len(fields) == 0 || !slices.Contains(BondModes, fields[0]) {
		return bad("after the interfaces comes one of " + strings.Join(BondModes, " "))
	}
	b.Mode, fields = fields[0], fields[1:]
	if len(fields) > 0 && slices.Contains(LACPModes, fields[0]) {
		b.LACP, fields = fields[0], fields[1:]
	}
	if len(fields) > 0 && fields[0] == "no-lacp-fallback" {
		b.Fallback, fields = false, fields[1:]
	}
	if len(fields) > 0 && strings.EqualFold(fields[0], "qinq") {
		b.QinQ, fields = true, fields[1:]
	}
	if len(fields) > 0 {
		b.Name, fields = fields[0], fields[1:]
	}
	if len(fields) > 0 {
		return bad(fmt.Sprintf("`%s` is too much", fields[0]))
	}
	if b.Mode == "balance-tcp" && b.LACP == "off" {
		return b, errs.New(errs.Invalid, "LACP mode must be set to active or passive for balance-tcp bond mode")
	}
	return b, nil
}

// String prints the bondspec as typed.
func (b BondConfig) String() string { return b.Raw }
