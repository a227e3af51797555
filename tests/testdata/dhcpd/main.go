// Command dhcpd is init of a container that gives out one address by DHCP
// (RFC 2131), and says to whom. It is for tests.
package main

import (
	"fmt"
	"net"
	"os"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
)

func main() {
	if err := serve("veth0", os.Args[1], net.ParseIP(os.Args[2])); err != nil {
		fmt.Println("dhcpd:", err)
		os.Exit(1)
	}
}

// serve gives an interface its address and those who ask the other.
func serve(name, own string, gift net.IP) error {
	addr, err := netlink.ParseAddr(own)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.AddrAdd(link, addr)
	}
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return err
	}
	s, err := server4.NewServer(name, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort}, func(conn net.PacketConn, peer net.Addr, req *dhcpv4.DHCPv4) {
		kind := map[dhcpv4.MessageType]dhcpv4.MessageType{
			dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck}[req.MessageType()]
		if kind == 0 {
			return
		}
		reply, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(gift),
			dhcpv4.WithServerIP(addr.IP), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(addr.IP)), dhcpv4.WithNetmask(addr.Mask),
			dhcpv4.WithRouter(addr.IP), dhcpv4.WithDNS(addr.IP), dhcpv4.WithLeaseTime(600))
		if err == nil {
			_, err = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
		}
		fmt.Println("dhcpd:", kind, "to", req.ClientHWAddr, err)
	})
	if err != nil {
		return err
	}
	fmt.Println("dhcpd: ready")
	return s.Serve()
}
