package guest_test

import (
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"
)

// dhcpd is a DHCP server at the other end of a guest's cable: QEMU's stream
// netdev carries each Ethernet frame after its length in four bytes.
type dhcpd struct {
	t    *testing.T
	path string
	addr net.IP
	ttl  time.Duration

	mu       sync.Mutex
	requests int
	names    []string // host names that clients told
	arps     int      // gratuitous ARP frames seen for addr
}

var (
	dhcpServer    = net.IPv4(10, 9, 0, 1).To4()
	dhcpServerMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
)

func startDHCP(t *testing.T, addr net.IP, ttl time.Duration) *dhcpd {
	d := &dhcpd{t: t, path: filepath.Join(t.TempDir(), "net"), addr: addr, ttl: ttl}
	l, err := net.Listen("unix", d.path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { d.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() }) // QEMU, started later, ends before
	return d
}

func (d *dhcpd) netdev(id string) string {
	return "stream,id=" + id + ",server=off,addr.type=unix,addr.path=" + d.path
}

func (d *dhcpd) serve(c net.Conn) {
	defer c.Close()
	var head [4]byte
	for {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		frame := make([]byte, min(binary.BigEndian.Uint32(head[:]), 70_000))
		if _, err := io.ReadFull(c, frame); err != nil {
			return
		}
		if reply := d.frame(frame); reply != nil {
			out := binary.BigEndian.AppendUint32(nil, uint32(len(reply)))
			if _, err := c.Write(append(out, reply...)); err != nil {
				return
			}
		}
	}
}

func (d *dhcpd) frame(f []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(f) >= 42 && f[12] == 8 && f[13] == 6 && net.IP(f[28:32]).Equal(d.addr) && net.IP(f[38:42]).Equal(d.addr) {
		d.arps++
	}
	if len(f) < 42 || f[12] != 8 || f[13] != 0 || f[23] != 17 || binary.BigEndian.Uint16(f[36:]) != 67 {
		return nil
	}
	req, err := dhcpv4.FromBytes(f[42:])
	if err != nil {
		d.t.Errorf("the guest sends bad DHCP: %v", err)
		return nil
	}
	kind := dhcpv4.MessageTypeOffer
	if req.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
		d.requests++
		d.names = append(d.names, req.HostName())
	}
	reply, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(d.addr),
		dhcpv4.WithServerIP(dhcpServer), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(dhcpServer)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(dhcpServer), dhcpv4.WithDNS(dhcpServer),
		dhcpv4.WithLeaseTime(uint32(d.ttl.Seconds())))
	if err != nil {
		d.t.Error(err)
		return nil
	}
	return udpFrame(req.ClientHWAddr, reply.ToBytes())
}

func udpFrame(to net.HardwareAddr, payload []byte) []byte {
	f := append(append(append([]byte{}, to...), dhcpServerMAC...), 8, 0)
	h := ipv4.Header{Version: 4, Len: 20, TotalLen: 28 + len(payload), TTL: 64, Protocol: 17, Src: dhcpServer, Dst: net.IPv4bcast}
	b, _ := h.Marshal() // fails for a nil header only
	binary.BigEndian.PutUint16(b[2:], uint16(h.TotalLen))
	binary.BigEndian.PutUint16(b[6:], 0)
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	f = append(f, b...)
	f = append(f, 0, 67, 0, 68)
	f = binary.BigEndian.AppendUint16(f, uint16(8+len(payload)))
	return append(append(f, 0, 0), payload...)
}

func (d *dhcpd) seen() (requests, arps int, names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.requests, d.arps, append([]string{}, d.names...)
}
