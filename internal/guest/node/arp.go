package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// announce tells the neighbours of a new address (RFC 5227 section 3), so
// that bridges and those who watch learn it. For IPv6 the kernel does so.
func announce(link *netlink.LinkAttrs, addr netip.Addr) error {
	if !addr.Is4() || len(link.HardwareAddr) != 6 {
		return nil
	}
	proto := uint16(unix.ETH_P_ARP)
	proto = proto<<8 | proto>>8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	defer unix.Close(fd)
	to := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index, Halen: 6}
	if err := unix.Sendto(fd, arpAnnouncement(link.HardwareAddr, addr), 0, to); err != nil {
		return fmt.Errorf("announce %s: %w", addr, err)
	}
	return nil
}

// announceAgain repeats announcements until ctx ends. The first one is lost
// where the driver takes its time to bring the link up (e1000: up to two
// seconds), and whoever watches may have come later.
func announceAgain(ctx context.Context, link *netlink.LinkAttrs, addrs []netip.Addr) error {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		if pause(ctx, wait); ctx.Err() != nil {
			return nil
		}
		for _, a := range addrs {
			_ = announce(link, a) // a link that is down now may be up next time
		}
	}
}

// arpAnnouncement is an Ethernet frame with an ARP request (RFC 826) in which
// addr asks all for itself.
func arpAnnouncement(mac []byte, addr netip.Addr) []byte {
	f := make([]byte, 0, 60)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac...)
	f = binary.BigEndian.AppendUint16(f, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, their lengths, request
	f = append(f, mac...)
	f = append(f, addr.AsSlice()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	f = append(f, addr.AsSlice()...)
	return f[:60] // the shortest frame without its checksum
}
