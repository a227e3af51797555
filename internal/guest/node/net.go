package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minimega/internal/guest/cmdline"
)

// Net keeps the interfaces configured as the kernel command line, or later
// Configure, asks; also those that are plugged in while the machine runs.
type Net struct {
	params cmdline.Params
	log    *slog.Logger

	mu      sync.Mutex
	asked   map[string][]cmdline.Address // by Configure, in place of params
	managed map[int]*managed             // by interface index
	servers map[string][]netip.Addr      // name servers, by interface
}

type managed struct {
	name   string
	ctx    context.Context // of the network, not of this manager
	cancel context.CancelFunc
	done   chan struct{}
}

func newNet(p cmdline.Params, log *slog.Logger) *Net {
	n := &Net{params: p, log: log, asked: map[string][]cmdline.Address{},
		managed: map[int]*managed{}, servers: map[string][]netip.Addr{}}
	n.setServers("", p.DNS)
	return n
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// run manages every Ethernet interface there is or comes to be.
func (n *Net) run(ctx context.Context) error {
	updates := make(chan netlink.LinkUpdate, 16)
	stop := make(chan struct{})
	defer close(stop)
	failed := make(chan error, 1)
	err := netlink.LinkSubscribeWithOptions(updates, stop, netlink.LinkSubscribeOptions{
		ListExisting:  true,
		ErrorCallback: func(err error) { failed <- err },
	})
	if err != nil {
		return fmt.Errorf("watch interfaces: %w", err)
	}
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return errors.New("watch interfaces: the kernel stopped telling")
			}
			n.update(ctx, u)
		case err := <-failed:
			return fmt.Errorf("watch interfaces: %w", err)
		case <-ctx.Done():
			return nil
		}
	}
}

func (n *Net) update(ctx context.Context, u netlink.LinkUpdate) {
	a := u.Link.Attrs()
	n.mu.Lock()
	m := n.managed[a.Index]
	n.mu.Unlock()
	switch {
	case u.Header.Type == unix.RTM_DELLINK:
		n.forget(a.Index, m)
	case m == nil && (u.Link.Type() == "device" || u.Link.Type() == "veth") && a.EncapType == "ether":
		n.manage(ctx, a.Index, a.Name)
	}
}

func (n *Net) forget(index int, m *managed) {
	if m == nil {
		return
	}
	m.cancel()
	<-m.done
	n.mu.Lock()
	delete(n.managed, index)
	n.mu.Unlock()
}

func (n *Net) manage(parent context.Context, index int, name string) {
	ctx, cancel := context.WithCancel(parent)
	m := &managed{name: name, ctx: parent, cancel: cancel, done: make(chan struct{})}
	n.mu.Lock()
	n.managed[index] = m
	want, ok := n.asked[name]
	n.mu.Unlock()
	if !ok {
		want = n.params.For(name)
	}
	go func() {
		defer close(m.done)
		defer cancel()
		for ctx.Err() == nil {
			if err := guard(ctx, func(ctx context.Context) error { return n.keep(ctx, name, want) }); err != nil {
				n.log.Warn(name + ": " + err.Error())
			}
			pause(ctx, time.Second)
		}
	}()
}

// Configure gives the interface the addresses in place of those it has. DHCP
// goes on in the background.
func (n *Net) Configure(iface string, want []cmdline.Address) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("no interface %s", iface)
	}
	index := link.Attrs().Index
	n.mu.Lock()
	m := n.managed[index]
	n.asked[iface] = want
	n.mu.Unlock()
	if m == nil {
		return fmt.Errorf("%s is no Ethernet device", iface)
	}
	n.forget(index, m)
	if err := flush(link); err != nil {
		return err
	}
	n.manage(m.ctx, index, iface)
	return nil
}

func flush(link netlink.Link) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("remove %s: %w", a.IPNet, err)
		}
	}
	return nil
}

// keep configures one interface and stays until ctx ends.
func (n *Net) keep(ctx context.Context, name string, want []cmdline.Address) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	if n.params.Forward {
		if err := forward(link); err != nil {
			return err
		}
	}
	var static []netip.Addr
	for _, a := range want {
		if a.Method != cmdline.Static {
			continue
		}
		if err := n.addStatic(link, a.Prefix); err != nil {
			return err
		}
		static = append(static, a.Prefix.Addr())
	}
	if slices.ContainsFunc(want, func(a cmdline.Address) bool { return a.Method == cmdline.DHCP }) {
		return n.keepLease(ctx, link)
	}
	return announceAgain(ctx, link.Attrs(), static)
}

func (n *Net) addStatic(link netlink.Link, p netip.Prefix) error {
	if err := setAddress(link, p, 0); err != nil {
		return err
	}
	n.log.Info(link.Attrs().Name + ": " + p.String())
	for _, gw := range n.params.Gateways {
		if p.Masked().Contains(gw) {
			if err := setGateway(link, gw); err != nil {
				return err
			}
		}
	}
	return announce(link.Attrs(), p.Addr())
}

// setAddress adds or refreshes an address; lifetime 0 is for ever.
func setAddress(link netlink.Link, p netip.Prefix, lifetime time.Duration) error {
	a := &netlink.Addr{
		IPNet:    &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		ValidLft: int(lifetime.Seconds()), PreferedLft: int(lifetime.Seconds()),
	}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // usable at once
	}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("set address %s: %w", p, err)
	}
	return nil
}

func setGateway(link netlink.Link, gw netip.Addr) error {
	bits := gw.BitLen()
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw.AsSlice(),
		Dst: &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("set gateway %s: %w", gw, err)
	}
	return nil
}

// setServers notes the name servers learnt on an interface ("": the command
// line's) and writes /etc/resolv.conf.
func (n *Net) setServers(iface string, servers []netip.Addr) {
	n.mu.Lock()
	n.servers[iface] = servers
	names := make([]string, 0, len(n.servers))
	for name := range n.servers {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		for _, s := range n.servers[name] {
			fmt.Fprintf(&b, "nameserver %s\n", s)
		}
	}
	n.mu.Unlock()
	if err := os.WriteFile("/etc/resolv.conf", []byte(b.String()), 0o644); err != nil {
		n.log.Warn(err.Error())
	}
}

// Interface is one line of `ip`.
type Interface struct {
	Name, MAC string
	Up        bool
	Addresses []netip.Prefix
}

// Interfaces lists the interfaces and their addresses, in kernel order.
func Interfaces() ([]Interface, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var list []Interface
	for _, i := range ifs {
		item := Interface{Name: i.Name, MAC: i.HardwareAddr.String(), Up: i.Flags&net.FlagUp != 0}
		addrs, err := i.Addrs()
		if err != nil {
			continue // unplugged meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				item.Addresses = append(item.Addresses, p)
			}
		}
		list = append(list, item)
	}
	return list, nil
}
