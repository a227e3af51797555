package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// lab is some hosts on one bridge, which is in a namespace of its own.
type lab struct {
	hosts []*host
	place netns.NsHandle // of the bridge
}

type host struct {
	name, dir, address string

	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func newLab(dir, mode string, count int) (*lab, error) {
	l := &lab{place: netns.None()}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return l, err
	}
	defer home.Close()
	defer func() { _ = netns.Set(home) }()
	if l.place, err = netns.New(); err != nil {
		return l, err
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lab"}}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		return l, err
	}
	for i := range count {
		h := &host{name: fmt.Sprintf("h%d", i), dir: filepath.Join(dir, fmt.Sprintf("h%d", i)), address: fmt.Sprintf("10.0.0.%d", i+1)}
		if err := l.start(h, i, bridge.Index, mode, filepath.Join(dir, "key")); err != nil {
			return l, fmt.Errorf("%s: %w", h.name, err)
		}
	}
	for _, h := range l.hosts {
		if err := h.do(fmt.Sprintf("members %d", count)); err != nil {
			return l, err
		}
	}
	return l, nil
}

// start makes a namespace, connects it to the bridge, and starts a host in it.
func (l *lab) start(h *host, i, bridge int, mode, key string) error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	own, err := netns.New()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := netns.Set(l.place); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("v%d", i), MasterIndex: bridge}, PeerName: "eth0", PeerNamespace: netlink.NsFd(own)}
	if err := errors.Join(netlink.LinkAdd(veth), netlink.LinkSetUp(veth)); err != nil {
		return err
	}
	if err := netns.Set(own); err != nil {
		return err
	}
	defer func() { _ = netns.Set(l.place) }()
	if err := up("lo", nil); err != nil {
		return err
	}
	if err := up("eth0", &net.IPNet{IP: net.ParseIP(h.address), Mask: net.CIDRMask(24, 32)}); err != nil {
		return err
	}
	return l.launch(h, mode, key)
}

func up(link string, address *net.IPNet) error {
	dev, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	if address != nil {
		if err := netlink.AddrAdd(dev, &netlink.Addr{IPNet: address}); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(dev)
}

// launch starts the process, which is in the namespace of this thread.
func (l *lab) launch(h *host, mode, key string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"host", h.name, h.dir, mode, key}
	for _, o := range l.hosts {
		args = append(args, o.address)
	}
	h.cmd = exec.Command(self, args...)
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	h.out = bufio.NewScanner(out)
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	l.hosts = append(l.hosts, h)
	return nil
}

// close ends the hosts; their namespaces go with them.
func (l *lab) close() error {
	var err error
	for _, h := range l.hosts {
		err = errors.Join(err, h.in.Close(), h.cmd.Wait())
	}
	if l.place.IsOpen() {
		err = errors.Join(err, l.place.Close())
	}
	return err
}
