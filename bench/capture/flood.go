package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// The link: flooder has sourceAddr and sends to targetAddr, whose end is not
// configured, so that the kernel drops the packets after capture.
const (
	sourceName, targetName = "flood0", "target0"
	sourceAddr, targetAddr = "10.99.0.1/24", "10.99.0.2"
	batch                  = 64
)

// flooder is the other side: a process in a namespace of its own.
type flooder struct {
	cmd  *exec.Cmd
	in   *os.File
	out  *bufio.Reader
	link netlink.Link // our end
}

// newFlooder starts the process and joins it to this namespace by a veth pair.
func newFlooder() (*flooder, error) {
	c := again("flood")
	r, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.Stdin = r
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	_ = r.Close()
	f := &flooder{cmd: c, in: in, out: bufio.NewReader(out)}
	if _, err := f.out.ReadString('\n'); err != nil {
		return f, fmt.Errorf("flooder did not start: %w", err)
	}
	return f, f.connect()
}

func (f *flooder) connect() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = targetName
	v := &netlink.Veth{LinkAttrs: attrs, PeerName: sourceName, PeerNamespace: netlink.NsPid(f.cmd.Process.Pid)}
	if err := netlink.LinkAdd(v); err != nil {
		return fmt.Errorf("veth pair: %w", err)
	}
	link, err := netlink.LinkByName(targetName)
	if err != nil {
		return err
	}
	f.link = link
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	_, err = fmt.Fprintln(f.in, link.Attrs().HardwareAddr)
	return err
}

// flood sends for d and returns how many packets left.
func (f *flooder) flood(d time.Duration) (sent uint64, err error) {
	if _, err = fmt.Fprintln(f.in, d); err != nil {
		return 0, err
	}
	_, err = fmt.Fscanln(f.out, &sent)
	return sent, err
}

// arrived is how many packets came in at our end since it exists.
func (f *flooder) arrived() (uint64, error) {
	link, err := netlink.LinkByIndex(f.link.Attrs().Index)
	if err != nil {
		return 0, err
	}
	return link.Attrs().Statistics.RxPackets, nil
}

func (f *flooder) close() {
	_ = f.in.Close() // ends it
	_ = f.cmd.Wait()
}

// flood is the flooder's process: a line with the target's MAC, then lines with durations.
func flood(o options) error {
	fmt.Println("ready")
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return in.Err()
	}
	conn, err := configure(in.Text())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	packets := ipv4.NewPacketConn(conn)
	to := &net.UDPAddr{IP: net.ParseIP(targetAddr), Port: 7}
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i] = ipv4.Message{Buffers: [][]byte{make([]byte, o.size-28)}, Addr: to}
	}
	for in.Scan() {
		d, err := time.ParseDuration(in.Text())
		if err != nil {
			return err
		}
		sent, err := send(packets, messages, d)
		if err != nil {
			return err
		}
		fmt.Println(sent)
	}
	return in.Err()
}

func send(p *ipv4.PacketConn, messages []ipv4.Message, d time.Duration) (sent int, err error) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, err := p.WriteBatch(messages, 0)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return sent, err
		}
		sent += max(n, 0)
	}
	return sent, nil
}

// configure sets up the flooder's end, with a fixed neighbour so that nobody has to answer ARP.
func configure(mac string) (*net.UDPConn, error) {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(sourceName)
	if err != nil {
		return nil, err
	}
	addr, err := netlink.ParseAddr(sourceAddr)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		return nil, err
	}
	neigh := &netlink.Neigh{LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: net.ParseIP(targetAddr), HardwareAddr: hw}
	if err := netlink.NeighAdd(neigh); err != nil {
		return nil, err
	}
	return net.ListenUDP("udp4", &net.UDPAddr{IP: addr.IP})
}
