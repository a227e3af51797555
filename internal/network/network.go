// Package network owns the ports and bridges of this host: the taps of VMs, the
// host's own taps, what they are connected to, and the addresses seen on them.
// How frames get from port to port is the business of a Datapath.
package network

import (
	"context"
	"net/netip"
	"os"
	"strings"

	"minimega/internal/errs"
)

// Kind says what stands at the outer end of a port.
type Kind int

// The kinds.
const (
	Tap       Kind = iota + 1 // a persistent tap device that a hypervisor opens
	Host                      // an interface of this host ("host tap")
	Container                 // one end of a pair; the other is in a network namespace
)

const (
	// DefaultBridge is the bridge of those who name none.
	DefaultBridge = "mega_bridge"
	// Disconnected is the VLAN of a port that is on none.
	Disconnected = -1
	// AutoName is the start of the names that ports get when they ask for none;
	// a number follows.
	AutoName = "mega_tap"

	maxVLAN     = 4096
	maxLinkName = 15 // IFNAMSIZ-1
)

// PortSpec describes a port before it is made.
type PortSpec struct {
	Name      string // of the device, "" for the next free mega_tapN
	Kind      Kind
	Bridge    string // "" for DefaultBridge
	VLAN      int    // 0-4095 or Disconnected
	Owner     string // for people: the VM's name
	Namespace string
	Alias     string // "namespace//alias" if the VLAN was named by that: see Manager.Renumber
	MAC       string // of the NIC behind a tap, as far as known: see Manager.SetMAC

	// Of a Container port, while it is made:
	Space  *os.File // network namespace of the other end; the caller's
	Inside string   // name of the other end, whose address is MAC
}

// Port is a made port.
type Port struct {
	PortSpec
	Index int // interface index of the device on the side of the bridge
}

// Link is a device that sees all frames of one VLAN of a bridge.
type Link struct {
	Name string
	VLAN int
}

// Counters are totals of a port since it was made, as the guest sees them: Rx
// is what went to the guest.
type Counters struct {
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
	RxDropped, TxDropped uint64
}

// Datapath connects ports. All methods may be called by any goroutine; those
// that change something return when the kernel has done it. Bridges come into
// being with their first port.
type Datapath interface {
	// Create makes ports and connects them: all, or none and an error. Specs
	// are complete but for Name, which may be "". The ports come in the order
	// of the specs.
	Create(ctx context.Context, specs []PortSpec) ([]Port, error)
	// Delete removes ports. A port whose device is gone already is no error.
	Delete(ctx context.Context, ports []Port) error
	// Move connects a port to a VLAN of a bridge, or to nothing if vlan is Disconnected.
	Move(ctx context.Context, p Port, bridge string, vlan int) error
	// AddIP gives an address to the outer end of a Host port.
	AddIP(ctx context.Context, p Port, addr netip.Prefix) error
	// Counters reads the counters of all devices of the host at once, by index.
	Counters(ctx context.Context) (map[int]Counters, error)

	// Preexisting reports whether a bridge of this name is there that we did not make.
	Preexisting(ctx context.Context, bridge string) (bool, error)
	// Links lists what to watch for all frames of a bridge. The channel is
	// closed when the answer may have changed.
	Links(bridge string) ([]Link, <-chan struct{})
	// Destroy removes what was made for a bridge. Ports still on it are left
	// unconnected.
	Destroy(ctx context.Context, bridge string) error
	// Close removes what is left of that which this Datapath made, and only that.
	Close(ctx context.Context) error
}

// Adopter is a Datapath that takes over what an earlier one with the same
// owner left in the kernel.
type Adopter interface {
	// Adopt connects those ports that are there as the specs say, and removes
	// everything else that the earlier one had made, whose names it returns.
	// It must be the first call.
	Adopt(ctx context.Context, ports []PortSpec) (found []Port, removed []string, err error)
}

// What only some datapaths can do. The manager answers Unsupported for the others.
type (
	// Trunker connects a bridge with an interface of the host, all VLANs tagged.
	Trunker interface {
		Trunk(ctx context.Context, bridge, iface string) error
		Untrunk(ctx context.Context, bridge, iface string) error
	}
	// Tunneler connects a bridge with one on another host, all VLANs.
	Tunneler interface {
		Tunnel(ctx context.Context, bridge string, t Tunnel) (name string, err error)
		Untunnel(ctx context.Context, bridge, name string) error
	}
	// Configurer sets properties of a bridge.
	Configurer interface {
		Configure(ctx context.Context, bridge, key, value string) error
	}
	// Mirrorer copies all frames of one port to another.
	Mirrorer interface {
		Mirror(ctx context.Context, from, to Port) error
		Unmirror(ctx context.Context, from, to Port) error
	}
	// Overlayer joins VLANs with those of other hosts.
	Overlayer interface {
		// SetRemotes joins a VLAN with the same one of the hosts with these
		// addresses, and no others, until its last port goes. A VLAN without
		// ports is none.
		SetRemotes(ctx context.Context, bridge string, vlan int, o Overlay, remotes []netip.Addr) error
		Overlays() []OverlayInfo
	}
	// Leaser gets addresses by DHCP on the outer end of a Host port.
	Leaser interface {
		DHCP(ctx context.Context, p Port) (netip.Prefix, error)
	}
)

// Tunnel describes the way to another host.
type Tunnel struct {
	Kind   string // vxlan or gre
	Remote netip.Addr
	Key    uint32 // both ends must use the same; 0 for none
	Name   string // that it had before, "" for a new one
}

// checkLinkName refuses names that the kernel would refuse or that would end up
// as a path or as several words somewhere.
func checkLinkName(what, name string) error {
	bad := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("/:\"'`\\,", c) }
	if name == "" || name == "." || name == ".." || len(name) > maxLinkName || name[0] == '-' ||
		strings.ContainsFunc(name, bad) || strings.Contains(name, "%") {
		return errs.WithRemedy(errs.New(errs.Invalid, "invalid %s name: %q", what, name),
			"a name has 1 to 15 letters, digits, and signs other than / : % , quotes and blanks")
	}
	return nil
}

func checkVLAN(vlan int) error {
	if vlan != Disconnected && (vlan < 0 || vlan >= maxVLAN) {
		return errs.New(errs.Invalid, "invalid VLAN (0 <= vlan < 4096)")
	}
	return nil
}
