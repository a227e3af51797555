package command

import (
	"context"
	"strconv"

	"minimega/internal/capture"
	"minimega/internal/capture/bpf"
	"minimega/internal/errs"
	"minimega/internal/namespace"
	"minimega/pkg/minicli"
)

// captures is the family that writes packets to files.
func captures(d *Deps) []Command {
	name := map[string]Completer{"vm": d.vmNames, "bridge": d.bridgeNames, "filename": d.fileNames}
	return []Command{
		{Patterns: []string{"capture"}, Short: "show captures",
			Long:  "A row per capture that runs, with the packets written so far and those that the kernel had to drop.",
			Scope: FanOut, Run: d.listCaptures},
		{Patterns: []string{"capture <pcap,> <snaplen,> [size]"}, Short: "show or set how much of a packet is kept",
			Long: "In bytes, for captures to come; 0 means the default of 1600.", Scope: FanOut, Run: d.captureSnaplen},
		{Patterns: []string{"capture <pcap,> <filter,> [bpf]"}, Short: "show or set which packets are kept",
			Long:  "A filter in the language of tcpdump, for captures to come, for instance 'tcp and port 80'. Quote it; \"\" keeps all.",
			Scope: FanOut, Run: d.captureFilter},
		{Patterns: []string{"capture <pcap,> vm <vm name> <interface index> <filename>", "capture <pcap,> vm <vm name> <filename>"},
			Short: "capture the packets of a VM's interface",
			Long: "Interfaces are counted from 0, which is also what is meant when the index is left out. A file without a directory lies in\n" +
				"the files directory; a name that ends in .pcapng is written in that format, any other as pcap.",
			Scope: VMTarget, Suggest: name, Run: d.captureVM},
		{Patterns: []string{"capture <pcap,> <delete,> vm <vm name>"}, Short: "end the captures of a VM",
			Long: "Ends all captures of a VM's interfaces, or of `all` VMs of the namespace.", Scope: VMTarget, Suggest: name, Run: d.endCaptureVM},
		{Patterns: []string{"capture <pcap,> bridge <bridge> <filename>"}, Short: "capture the packets of a whole bridge",
			Long:    "Packets carry the tag of their VLAN. The file's path is relative to where the daemon was started.",
			Suggest: name, Run: d.captureBridge},
		{Patterns: []string{"capture <pcap,> <delete,> bridge <bridge>"}, Short: "end the captures of a bridge",
			Long: "Ends all captures of a bridge, or of `all` bridges.", Suggest: name,
			Run: func(ctx context.Context, c *Call) (*minicli.Response, error) {
				return done(d.endCaptures(ctx, func(s capture.Spec) bool {
					return s.Namespace == c.Namespace && s.VM == "" && (s.Bridge == c.Str("bridge") || c.Str("bridge") == "all")
				}))
			}},
		{Patterns: []string{"clear capture [netflow,pcap]"}, Short: "end all captures of the namespace",
			Long: "Ends every capture of the namespace and sets snaplen and filter back.", Scope: FanOut, Run: d.clearCapture},
	}
}

func (d *Deps) listCaptures(_ context.Context, c *Call) (*minicli.Response, error) {
	var rows [][]string
	for _, i := range d.Captures.List() {
		if i.Namespace != c.Namespace {
			continue
		}
		iface := ""
		if i.VM != "" {
			iface = i.VM + ":" + strconv.Itoa(i.Interface)
		}
		rows = append(rows, []string{i.Bridge, i.Kind, iface, i.Mode, "false", i.Path,
			strconv.FormatUint(i.Packets, 10), strconv.FormatUint(i.Drops, 10), captureStatus(i)})
	}
	return table([]string{"bridge", "type", "interface", "mode", "compress", "path", "packets", "drops", "status"}, rows)
}

func (d *Deps) captureSnaplen(_ context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		set := ns.Capture()
		if !c.Has("size") {
			return text(strconv.Itoa(set.Snaplen))
		}
		n, err := strconv.Atoi(c.Str("size"))
		if err != nil || n < 0 || n > bpf.DefaultSnaplen {
			return nil, errs.New(errs.Invalid, "invalid snaplen: `%s` (0 to %d bytes)", c.Str("size"), bpf.DefaultSnaplen)
		}
		set.Snaplen = n
		ns.SetCapture(set)
		return done(nil)
	})
}

func (d *Deps) captureFilter(_ context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		set := ns.Capture()
		if !c.Has("bpf") {
			return text(set.Filter)
		}
		set.Filter = c.Str("bpf")
		if _, err := bpf.Compile(set.Filter, 0); err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter: %w", err)
		}
		ns.SetCapture(set)
		return done(nil)
	})
}

func (d *Deps) captureSpec(c *Call, path string) (capture.Spec, error) {
	ns, err := d.NS.Get(c.Namespace)
	if err != nil {
		return capture.Spec{}, err
	}
	set := ns.Capture()
	return capture.Spec{Namespace: c.Namespace, Kind: "pcap", Path: path, Options: capture.Options{Snaplen: set.Snaplen, Filter: set.Filter}}, nil
}

func (d *Deps) captureVM(ctx context.Context, c *Call) (*minicli.Response, error) {
	v, err := d.VMs.Find(c.Namespace, c.Str("vm"))
	if err != nil {
		return nil, err
	}
	index := 0
	if c.Has("interface") {
		if index, err = strconv.Atoi(c.Str("interface")); err != nil {
			return nil, errs.New(errs.Invalid, "invalid interface index: `%s` (interfaces are counted from 0)", c.Str("interface"))
		}
	}
	nic, err := v.Interface(index)
	if err != nil {
		return nil, err
	}
	spec, err := d.captureSpec(c, d.filesPath(c.Str("filename")))
	if err != nil {
		return nil, err
	}
	spec.VM, spec.VMID, spec.Interface, spec.Bridge = v.Name, v.ID, index, nic.Bridge
	return done(d.Captures.StartLink(ctx, spec, nic.Tap))
}

func (d *Deps) endCaptureVM(ctx context.Context, c *Call) (*minicli.Response, error) {
	name := c.Str("vm")
	if name != "all" {
		v, err := d.VMs.Find(c.Namespace, name)
		if err != nil {
			return nil, err
		}
		name = v.Name
	}
	return done(d.endCaptures(ctx, func(s capture.Spec) bool {
		return s.Namespace == c.Namespace && s.VM != "" && (s.VM == name || name == "all")
	}))
}

// endCaptures ends those that match; none is as good as some.
func (d *Deps) endCaptures(ctx context.Context, match func(capture.Spec) bool) error {
	_, err := d.Captures.Stop(ctx, match)
	return err
}

// captureStatus says whether a capture runs, or why it ended by itself.
func captureStatus(i capture.Info) string {
	if i.Err != nil {
		return "ended: " + i.Err.Error()
	}
	return "running"
}

func (d *Deps) captureBridge(ctx context.Context, c *Call) (*minicli.Response, error) {
	bridge := c.Str("bridge")
	spec, err := d.captureSpec(c, c.Str("filename"))
	if err != nil {
		return nil, err
	}
	spec.Bridge = bridge
	if err := d.Net.EnsureBridge(ctx, bridge); err != nil {
		return nil, err
	}
	return done(d.Captures.StartLinks(ctx, spec, bridgeLinks{d, bridge}))
}

// bridgeLinks tells a capture which devices see the frames of a bridge.
type bridgeLinks struct {
	d      *Deps
	bridge string
}

func (b bridgeLinks) Links() ([]capture.Link, <-chan struct{}) {
	links, changed := b.d.Net.Links(b.bridge)
	out := make([]capture.Link, len(links))
	for i, l := range links {
		out[i] = capture.Link{Name: l.Name, VLAN: l.VLAN}
	}
	return out, changed
}

func (d *Deps) clearCapture(ctx context.Context, c *Call) (*minicli.Response, error) {
	return d.withNS(c, func(ns *namespace.Namespace) (*minicli.Response, error) {
		ns.SetCapture(namespace.Capture{})
		return done(d.EndCaptures(ctx, c.Namespace))
	})
}

// EndCaptures ends all captures of a namespace.
func (d *Deps) EndCaptures(ctx context.Context, ns string) error {
	_, err := d.Captures.StopAll(ctx, ns)
	return err
}
