package vm

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Info is a snapshot of one VM. Config is shared and must not be changed.
type Info struct {
	ID         int
	Name       string
	Namespace  string
	Host       string
	State      State
	LaunchTime time.Time
	Type       Type
	UUID       string
	ActiveCC   bool
	Pid        int // 0 without a process
	VNCPort    int // 0 without a screen
	Console    int // console port of an emulator, 0 without one
	ADB        int // its port for adb, 0 without one
	Config     *Config
	Networks   []NetConfig // with addresses as last seen
	vlans      []string    // VLANs as printed
}

// Columns of `vm info` and of its summary, in order.
var (
	InfoColumns = strings.Fields(`id name state uptime type uuid cc_active pid vlan bridge tap mac ip ip6 qos qinq bond memory vcpus disks
		snapshot initrd kernel cdrom save append serial-ports virtio-ports vnc_port usb-use-xhci tpm-socket bidirectional-copy-paste
		android_avd android_console_port android_adb_port android_serial filesystem hostname init preinit fifo volume console_port tags`)
	SummaryColumns = strings.Fields("id name state type uuid cc_active vlan")
)

// Info returns snapshots of the VMs of a namespace, by ID.
func (m *Manager) Info(namespace string) []Info {
	vms := m.List(namespace)
	infos := make([]Info, len(vms))
	for i, v := range vms {
		infos[i] = v.info()
	}
	return infos
}

// Living returns how many VMs of a type have a process here.
func (m *Manager) Living(t Type) int {
	n := 0
	for _, v := range m.List("") {
		if v.Type == t && v.State().Alive() {
			n++
		}
	}
	return n
}

func (v *VM) info() Info {
	v.mu.Lock()
	state, c, machine := v.state, v.config, v.machine
	v.mu.Unlock()
	o := &v.manager.opts
	in := Info{ID: v.ID, Name: v.Name, Namespace: v.Namespace, Host: o.Host, State: state, LaunchTime: v.Created,
		Type: v.Type, UUID: v.UUID, Config: c}
	if machine != nil {
		in.Pid = machine.Pid()
		if d, ok := machine.(Displayer); ok && d.VNC() != nil {
			in.VNCPort = d.VNC().Port()
		}
		if e, ok := machine.(Emulator); ok {
			in.Console, in.ADB = e.Ports()
		}
		if c, ok := machine.(Consoler); ok {
			in.Console = c.ConsolePort()
		}
	}
	if len(c.Networks) == 0 {
		return in
	}
	in.Networks = make([]NetConfig, len(c.Networks))
	in.vlans = make([]string, len(c.Networks))
	copy(in.Networks, c.Networks)
	for i := range in.Networks {
		n := &in.Networks[i]
		if n.Tap != "" {
			n.IP4, n.IP6 = o.Network.Addresses(n.Tap)
		}
		if n.VLAN == Disconnected {
			in.vlans[i] = "disconnected"
		} else {
			in.vlans[i] = o.VLANName(v.Namespace, n.VLAN)
		}
	}
	return in
}

// notApplicable stands in the columns of other types of VM.
const notApplicable = "N/A"

// Row returns the cells of InfoColumns.
func (in *Info) Row() []string {
	row := make([]string, 0, len(InfoColumns))
	row = append(row, strconv.Itoa(in.ID), in.Name, in.State.String(), time.Since(in.LaunchTime).String(), in.Type.String(),
		in.UUID, strconv.FormatBool(in.ActiveCC), strconv.Itoa(in.Pid))
	row = in.appendNetworks(row)
	c := in.Config
	row = append(row, u(c.Memory), u(c.VCPUs))
	if in.Type == KVM {
		row = append(row, disksText(c.Disks))
	} else {
		row = append(row, notApplicable)
	}
	row = append(row, strconv.FormatBool(c.Snapshot))
	row = in.appendKVM(row)
	row = in.appendAndroid(row)
	row = in.appendContainer(row)
	return append(row, tagsJSON(c.Tags))
}

// SummaryRow returns the cells of SummaryColumns.
func (in *Info) SummaryRow() []string {
	return []string{strconv.Itoa(in.ID), in.Name, in.State.String(), in.Type.String(), in.UUID, strconv.FormatBool(in.ActiveCC), bracket(in.vlans)}
}

func (in *Info) appendNetworks(row []string) []string {
	if len(in.Networks) == 0 {
		return append(row, "[]", "[]", "[]", "[]", "[]", "[]", "[]", "[]", bonds(in.Config))
	}
	cell := func(of func(*NetConfig) string) string {
		var b strings.Builder
		b.WriteByte('[')
		for i := range in.Networks {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(of(&in.Networks[i]))
		}
		b.WriteByte(']')
		return b.String()
	}
	return append(row,
		bracket(in.vlans),
		cell(func(n *NetConfig) string { return n.Bridge }),
		cell(func(n *NetConfig) string { return n.Tap }),
		cell(func(n *NetConfig) string { return n.MAC }),
		cell(func(n *NetConfig) string { return n.IP4 }),
		cell(func(n *NetConfig) string { return n.IP6 }),
		"[]",
		in.qinq(),
		bonds(in.Config))
}

func (in *Info) qinq() string {
	var q []string
	for i := range in.Networks {
		if n := &in.Networks[i]; n.QinQ {
			q = append(q, fmt.Sprintf("%s (%d)", n.Tap, n.VLAN))
		}
	}
	return bracket(q)
}

func bonds(c *Config) string {
	var out []string
	for _, b := range c.Bonds {
		var taps []string
		for _, i := range b.Interfaces {
			if i < len(c.Networks) {
				taps = append(taps, c.Networks[i].Tap)
			}
		}
		out = append(out, b.Name+" ("+strings.Join(taps, " ")+")")
	}
	return bracket(out)
}

func (in *Info) appendKVM(row []string) []string {
	c := in.Config
	if in.Type != KVM {
		for range 11 {
			row = append(row, notApplicable)
		}
		return row
	}
	return append(row, c.InitrdPath, c.KernelPath, c.CdromPath, notApplicable, words(c.Append), u(c.SerialPorts), c.VirtioPorts,
		strconv.Itoa(in.VNCPort), strconv.FormatBool(c.UsbUseXHCI), c.TpmSocketPath, strconv.FormatBool(c.BidirectionalCopyPaste))
}

func (in *Info) appendAndroid(row []string) []string {
	if in.Type != Android {
		return append(row, notApplicable, notApplicable, notApplicable, notApplicable)
	}
	return append(row, in.Config.AVDName, strconv.Itoa(in.Console), strconv.Itoa(in.ADB), in.Serial())
}

// Serial is the name that adb has for an emulator, "" without one.
func (in *Info) Serial() string {
	if in.Console == 0 {
		return ""
	}
	return "emulator-" + strconv.Itoa(in.Console)
}

func (in *Info) appendContainer(row []string) []string {
	if c := in.Config; in.Type == Container {
		return append(row, c.FilesystemPath, c.Hostname, words(c.Init), c.Preinit, notApplicable, tagsJSON(c.VolumePaths), strconv.Itoa(in.Console))
	}
	return append(row, notApplicable, notApplicable, notApplicable, notApplicable, notApplicable, notApplicable, notApplicable)
}

func u(v uint64) string { return strconv.FormatUint(v, 10) }

func bracket(words []string) string { return "[" + strings.Join(words, ", ") + "]" }

// words prints a list as Go does.
func words(w []string) string { return "[" + strings.Join(w, " ") + "]" }

func disksText(disks []DiskConfig) string {
	s := make([]string, len(disks))
	for i, d := range disks {
		s[i] = d.String()
	}
	return strings.Join(s, " ")
}
