package command

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"minimega/internal/vm"
	"minimega/pkg/minicli"
)

func vmInfo(d *Deps) []Command {
	return []Command{{
		Patterns: []string{"vm info [summary,]"},
		Short:    "show the VMs of the namespace",
		Long: "A row per VM. `summary` shows the few columns that matter most; choose others with\n" +
			"`.columns name,state,ip vm info`, and rows with `.filter state=running vm info`.",
		Scope: FanOut,
		Run: func(_ context.Context, c *Call) (*minicli.Response, error) {
			infos := d.VMs.Info(c.Namespace)
			r := &minicli.Response{Header: vm.InfoColumns, Tabular: make([][]string, len(infos)), Data: vmData(infos)}
			if c.Chose("summary") {
				r.Header = vm.SummaryColumns
			}
			for i := range infos {
				if c.Chose("summary") {
					r.Tabular[i] = infos[i].SummaryRow()
				} else {
					r.Tabular[i] = infos[i].Row()
				}
			}
			return r, nil
		},
	}}
}

// vmData is the structured form of `vm info`: one flat object per VM, in which
// the fields of its configuration stand beside its own. It is written by hand
// because thousands of VMs are listed at once.
type vmData []vm.Info

// AppendJSON appends the array to b.
func (d vmData) AppendJSON(b []byte) []byte {
	b = append(b, '[')
	for i := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendVM(b, &d[i])
	}
	return append(b, ']')
}

// MarshalJSON serves readers that do not know AppendJSON.
func (d vmData) MarshalJSON() ([]byte, error) { return d.AppendJSON(nil), nil }

// object appends members to a JSON object.
type object struct{ b []byte }

func (o *object) key(k string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, k...) // keys are identifiers
	o.b = append(o.b, '"', ':')
}

func (o *object) str(k, v string)       { o.key(k); o.b = minicli.AppendString(o.b, v) }
func (o *object) num(k string, v int64) { o.key(k); o.b = strconv.AppendInt(o.b, v, 10) }
func (o *object) bool(k string, v bool) { o.key(k); o.b = strconv.AppendBool(o.b, v) }

// float appends a finite number.
func (o *object) float(k string, v float64) { o.key(k); o.b = strconv.AppendFloat(o.b, v, 'g', -1, 64) }

// dict appends an object, keys sorted.
func (o *object) dict(k string, v map[string]string) {
	o.key(k)
	o.b = append(o.b, '{')
	for i, key := range slices.Sorted(maps.Keys(v)) {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = append(minicli.AppendString(o.b, key), ':')
		o.b = minicli.AppendString(o.b, v[key])
	}
	o.b = append(o.b, '}')
}

// other appends whatever encoding/json makes of v; for rare or empty members.
func (o *object) other(k string, v any) {
	o.key(k)
	raw, err := json.Marshal(v)
	if err != nil { // only plain data comes here
		raw = []byte("null")
	}
	o.b = append(o.b, raw...)
}

func (o *object) strs(k string, v []string) {
	o.key(k)
	if v == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.b = append(o.b, '[')
	for i, s := range v {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = minicli.AppendString(o.b, s)
	}
	o.b = append(o.b, ']')
}

func appendVM(b []byte, in *vm.Info) []byte {
	c := in.Config
	o := &object{append(b, '{')}
	o.str("UUID", in.UUID)
	o.num("VCPUs", int64(c.VCPUs))
	o.num("Memory", int64(c.Memory))
	o.bool("Snapshot", c.Snapshot)
	o.str("Schedule", c.Schedule)
	o.str("Colocate", c.Colocate)
	o.num("Coschedule", c.Coschedule)
	o.bool("Backchannel", c.Backchannel)
	appendNetworks(o, in.Networks)
	if len(c.Bonds) > 0 {
		o.other("Bonds", c.Bonds)
	} else {
		o.strs("Bonds", nil)
	}
	o.dict("Tags", c.Tags)
	o.num("ID", int64(in.ID))
	o.str("Name", in.Name)
	o.str("Namespace", in.Namespace)
	o.str("Host", in.Host)
	o.num("State", int64(in.State))
	o.key("LaunchTime")
	o.b = append(o.b, '"')
	o.b = in.LaunchTime.AppendFormat(o.b, "2006-01-02T15:04:05.999999999Z07:00")
	o.b = append(o.b, '"')
	o.num("Type", int64(in.Type))
	o.bool("ActiveCC", in.ActiveCC)
	o.num("Pid", int64(in.Pid))
	switch in.Type {
	case vm.KVM:
		appendKVM(o, &c.KVMConfig, in.VNCPort)
	case vm.Container:
		appendContainer(o, in)
	case vm.Android:
		appendAndroid(o, in)
	}
	return append(o.b, '}')
}

func appendNetworks(o *object, nets []vm.NetConfig) {
	o.key("Networks")
	if nets == nil {
		o.b = append(o.b, "null"...)
		return
	}
	o.b = append(o.b, '[')
	for i := range nets {
		n := &nets[i]
		if i > 0 {
			o.b = append(o.b, ',')
		}
		e := &object{append(o.b, '{')}
		e.str("Alias", n.Alias)
		e.num("VLAN", int64(n.VLAN))
		e.str("Bridge", n.Bridge)
		e.str("Tap", n.Tap)
		e.str("MAC", n.MAC)
		e.str("Driver", n.Driver)
		e.str("IP4", n.IP4)
		e.str("IP6", n.IP6)
		e.bool("QinQ", n.QinQ)
		e.float("RxRate", n.RxRate)
		e.float("TxRate", n.TxRate)
		e.str("Raw", n.Raw)
		o.b = append(e.b, '}')
	}
	o.b = append(o.b, ']')
}

func appendKVM(o *object, k *vm.KVMConfig, vncPort int) {
	o.str("QemuPath", k.QemuPath)
	o.str("KernelPath", k.KernelPath)
	o.str("InitrdPath", k.InitrdPath)
	o.str("CdromPath", k.CdromPath)
	o.str("MigratePath", k.MigratePath)
	o.str("CPU", k.CPU)
	o.num("Sockets", int64(k.Sockets))
	o.num("Cores", int64(k.Cores))
	o.num("Threads", int64(k.Threads))
	o.str("Machine", k.Machine)
	o.num("SerialPorts", int64(k.SerialPorts))
	o.str("VirtioPorts", k.VirtioPorts)
	o.str("Vga", k.Vga)
	o.strs("Append", k.Append)
	appendDisks(o, k.Disks)
	o.bool("UsbUseXHCI", k.UsbUseXHCI)
	o.str("TpmSocketPath", k.TpmSocketPath)
	o.bool("BidirectionalCopyPaste", k.BidirectionalCopyPaste)
	o.strs("QemuAppend", k.QemuAppend)
	appendOverrides(o, k.QemuOverride)
	o.num("VNCPort", int64(vncPort))
}

func appendDisks(o *object, disks []vm.DiskConfig) {
	if disks == nil {
		o.strs("Disks", nil)
		return
	}
	o.key("Disks")
	o.b = append(o.b, '[')
	for i := range disks {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		e := &object{append(o.b, '{')}
		e.str("Path", disks[i].Path)
		e.str("SnapshotPath", disks[i].SnapshotPath)
		e.str("Interface", disks[i].Interface)
		e.str("Cache", disks[i].Cache)
		e.str("Raw", disks[i].Raw)
		o.b = append(e.b, '}')
	}
	o.b = append(o.b, ']')
}

func appendContainer(o *object, in *vm.Info) {
	k := &in.Config.ContainerConfig
	o.str("FilesystemPath", k.FilesystemPath)
	o.str("Hostname", k.Hostname)
	o.strs("Init", k.Init)
	o.str("Preinit", k.Preinit)
	o.num("Fifos", int64(k.Fifos))
	o.dict("VolumePaths", k.VolumePaths)
	o.num("ConsolePort", int64(in.Console))
}

func appendAndroid(o *object, in *vm.Info) {
	a := &in.Config.AndroidConfig
	o.str("AndroidSDKPath", a.SDKPath)
	o.str("AndroidEmulatorPath", a.EmulatorPath)
	o.str("AndroidADBPath", a.ADBPath)
	o.str("AndroidAVDName", a.AVDName)
	o.str("AndroidAVDDir", a.AVDDir)
	o.bool("AndroidNoWindow", a.NoWindow)
	o.num("AndroidConsoleBasePort", int64(a.ConsoleBasePort))
	o.strs("AndroidExtraArgs", a.ExtraArgs)
	o.bool("AndroidWritableSystem", a.WritableSystem)
	o.strs("QemuAppend", in.Config.QemuAppend)
	appendOverrides(o, in.Config.QemuOverride)
	o.num("AndroidConsolePort", int64(in.Console))
	o.num("AndroidADBPort", int64(in.ADB))
	o.str("AndroidSerial", in.Serial())
}

func appendOverrides(o *object, list []vm.Override) {
	if list == nil {
		o.strs("QemuOverride", nil)
		return
	}
	o.other("QemuOverride", list)
}
