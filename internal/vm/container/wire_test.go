package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"minimega/internal/network"
	"minimega/internal/network/linux"
	"minimega/internal/network/networktest"
)

// wires is a bench whose containers are on VLANs, in a host of its own.
type wires struct {
	*bench
	dp *linux.Datapath
}

func newWires(t *testing.T) *wires {
	t.Helper()
	networktest.Host(t)
	b := newBench(t)
	dp, err := linux.New(b.base, b.engine.log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dp.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return &wires{b, dp}
}

// inject has a container on a VLAN send frames, which may not be answered.
func (w *wires) inject(vlan int, mac string, f frames) {
	w.t.Helper()
	vol := w.volume()
	err := os.Mkdir(vol, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(vol, "frames"), []byte(strings.Join(f.list, "\n")), 0o644)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	m, _ := w.join(vlan, mac, "inject")
	w.says(m, "sent")
}

// volume is the directory that the next container has as /vol.
func (w *wires) volume() string { return filepath.Join(w.base, fmt.Sprint("vol", w.next)) }

// join starts a container with a NIC on a VLAN.
func (w *wires) join(vlan int, mac string, args ...string) (*Machine, network.Port) {
	w.t.Helper()
	c := w.config(args...)
	c.VolumePaths = map[string]string{"/vol": w.volume()}
	s := w.spec(c)
	ports, err := w.dp.Create(w.t.Context(), []network.PortSpec{{Kind: network.Container, Bridge: "br", VLAN: vlan, Space: s.Space, Inside: "veth0", MAC: mac, Owner: s.Name}})
	if err != nil {
		w.t.Fatal(err)
	}
	m, err := w.engine.Launch(w.t.Context(), s)
	if err != nil {
		w.t.Fatal(err)
	}
	w.endAfter(m)
	if err := m.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return m.(*Machine), ports[0]
}

// says waits until a container has said a word.
func (w *wires) says(m *Machine, word string) {
	w.t.Helper()
	until(w.t, word, func() bool {
		select {
		case <-m.Done():
			w.t.Fatalf("ended: %s", m.shown())
		default:
		}
		return strings.Contains(m.shown(), word)
	})
}

// seen are the marks that a watching container has seen.
func (w *wires) seen(m *Machine) []string {
	text, err := os.ReadFile(filepath.Join(m.spec.Config.VolumePaths["/vol"], "seen"))
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Fields(string(text))
}

// host gives the host an interface with addresses, at which it listens, and
// returns that interface's MAC.
func (w *wires) host() (mac net.HardwareAddr, heard []*net.UDPConn) {
	w.t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: hostLink}, PeerName: "nic1"}
	if err := netlink.LinkAdd(link); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := netlink.LinkDel(link); err != nil {
			w.t.Error(err)
		}
	})
	made, err := netlink.LinkByName(hostLink)
	if err == nil {
		err = netlink.LinkSetUp(made)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	for ip, bits := range map[string]int{hostIP: 24, hostIP6: 64} {
		addr := net.ParseIP(ip)
		all := 128
		if addr.To4() != nil {
			addr, all = addr.To4(), 32
		}
		const noDAD = 2 // IFA_F_NODAD: usable at once
		if err := netlink.AddrAdd(made, &netlink.Addr{Flags: noDAD, IPNet: &net.IPNet{IP: addr, Mask: net.CIDRMask(bits, all)}}); err != nil {
			w.t.Fatal(err)
		}
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr, Port: hostPort})
		if err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() { c.Close() })
		heard = append(heard, c)
	}
	return made.Attrs().HardwareAddr, heard
}

const (
	hostLink = "nic0"
	hostIP   = "10.9.0.200"
	hostIP6  = "fd09::200"
	hostPort = 7
)

// bridges is what frames of a container must not change in the host's bridges.
func (w *wires) bridges() string {
	w.t.Helper()
	out, err := exec.Command("ip", "-d", "-o", "link", "show").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	words := regexp.MustCompile(`(^\d+: \S+|\b(bridge_id|designated_root|root_port|root_path_cost|topology_change|topology_change_detected|stp_state|group_address|state|designated_bridge|priority|cost) \S+)`)
	var lines []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "bridge") {
			lines = append(lines, strings.Join(words.FindAllString(line, -1), " "))
		}
	}
	return strings.Join(lines, "\n")
}

// frames makes frames, each with a mark.
type frames struct {
	list  []string // in hex
	marks []string
}

func (f *frames) add(name string, parts ...string) {
	frame := strings.Join(parts, "")
	mark := "mark-" + name + ";"
	f.marks = append(f.marks, mark)
	frame += mark
	frame += strings.Repeat("\x00", max(0, 60-len(frame)))
	f.list = append(f.list, hex.EncodeToString([]byte(frame)))
}

const (
	everybody = "\xff\xff\xff\xff\xff\xff"
	nothing   = "\x88\xb5" // a type for experiments
)

func tag(kind uint16, vlan uint16) string {
	b := binary.BigEndian.AppendUint16(nil, kind)
	return string(binary.BigEndian.AppendUint16(b, vlan))
}

// arp asks for an address (RFC 826).
func arp(mac, from, to string) string {
	return "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + mac + ip(from) + "\x00\x00\x00\x00\x00\x00" + ip(to)
}

func ip(text string) string {
	a := net.ParseIP(text)
	if four := a.To4(); four != nil {
		return string(four)
	}
	return string(a)
}

func sum(parts ...string) string {
	var n uint32
	all := strings.Join(parts, "")
	if len(all)%2 == 1 {
		all += "\x00"
	}
	for i := 0; i < len(all); i += 2 {
		n += uint32(all[i])<<8 | uint32(all[i+1])
	}
	for n > 0xffff {
		n = n>>16 + n&0xffff
	}
	return string(binary.BigEndian.AppendUint16(nil, ^uint16(n)))
}

const udpLength = 8 + 20 // with a mark of up to 20 bytes behind

// udp is the start of a packet; what follows is its payload, without checksum.
func udp(from, to string) string {
	head, tail := "\x45\x00\x00"+string(rune(20+udpLength))+"\x00\x00\x00\x00\x40\x11", ip(from)+ip(to)
	return "\x08\x00" + head + sum(head, tail) + tail + "\x00\x07\x00\x07\x00" + string(rune(udpLength)) + "\x00\x00"
}

// solicit looks for an address (RFC 4861).
func solicit(mac, from, to string) string {
	body := "\x00\x00\x00\x00" + ip(to) + "\x01\x01" + mac
	pseudo := ip(from) + ip(to) + "\x00\x00\x00\x20\x00\x00\x00\x3a"
	icmp := "\x87\x00" + sum(pseudo, "\x87\x00", body) + body
	return "\x86\xdd\x60\x00\x00\x00\x00\x20\x3a\xff" + ip(from) + ip(to) + icmp
}

// bpdu is of a bridge that says it is the root and that the topology has
// changed (IEEE 802.1D, 9.3.1).
func bpdu(mac string) string {
	id := "\x00\x00" + mac
	return "\x00\x26\x42\x42\x03\x00\x00\x00\x00\x81" + id + "\x00\x00\x00\x00" + id + "\x80\x01\x00\x00\x14\x00\x02\x00\x0f\x00"
}

// A hostile container cannot send to other VLANs, or to the host, whatever
// frames it makes, and cannot change the host's bridges.
func TestHostileFrames(t *testing.T) {
	w := newWires(t)
	hostMAC, heard := w.host()
	const mine, neighbours, others = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03"
	neighbour, _ := w.join(101, neighbours, "watch")
	other, port := w.join(102, others, "watch")
	for _, m := range []*Machine{neighbour, other} {
		w.says(m, "watching")
	}
	own := map[int]network.Link{}
	links, _ := w.dp.Links("br")
	for _, l := range links {
		own[l.VLAN] = l
	}
	watches := map[string]*os.File{}
	for _, name := range []string{hostLink, "lo", own[102].Name, port.Name} {
		watches[name] = networktest.Watch(t, name)
	}
	bytesOf := func(text string) string {
		mac, err := net.ParseMAC(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(mac)
	}
	bridgeMAC := func(vlan int) string {
		l, err := netlink.LinkByName(own[vlan].Name)
		if err != nil {
			t.Fatal(err)
		}
		return string(l.Attrs().HardwareAddr)
	}
	me := bytesOf(mine)
	places := map[string]string{"all": everybody, "other": bytesOf(others), "nic": string(hostMAC), "bridge": bridgeMAC(101), "bridge102": bridgeMAC(102)}
	for i := range 16 {
		places[fmt.Sprint("group", i)] = "\x01\x80\xc2\x00\x00" + string(rune(i))
	}
	tags := map[string]string{
		"plain": "", "vlan102": tag(0x8100, 102), "twice": tag(0x8100, 101) + tag(0x8100, 102), "twiceout": tag(0x8100, 102) + tag(0x8100, 101),
		"provider": tag(0x88a8, 102) + tag(0x8100, 102), "provideronly": tag(0x88a8, 102), "old": tag(0x9100, 102),
		"priority": tag(0x8100, 7<<13), "prioritytwice": tag(0x8100, 7<<13) + tag(0x8100, 102),
	}
	var f frames
	for place, to := range places {
		for name, tags := range tags {
			f.add(name+place, to, me, tags, nothing)
			f.add("udp"+name+place, to, me, tags, udp("10.9.0.99", hostIP))
		}
		f.add("arp"+place, to, me, arp(me, "10.9.0.99", hostIP))
		f.add("nd"+place, to, me, solicit(me, "fd09::99", hostIP6))
		f.add("bpdu"+place, to, me, bpdu(me))
	}
	for name, from := range map[string]string{"neighbour": bytesOf(neighbours), "other": bytesOf(others), "nic": string(hostMAC), "bridge": bridgeMAC(101), "group": "\x01\x80\xc2\x00\x00\x00"} {
		f.add("as"+name, everybody, from, nothing)
		f.add("taggedas"+name, everybody, from, tag(0x8100, 102), nothing)
		f.add("arpas"+name, everybody, from, arp(from, "10.9.0.98", hostIP))
		f.add("udpas"+name, string(hostMAC), from, udp("10.9.0.98", hostIP))
	}
	f.add("pause", "\x01\x80\xc2\x00\x00\x01", me, "\x88\x08\x00\x01\xff\xff")
	f.add("last", everybody, me, nothing)
	before := w.bridges()
	w.inject(101, mine, f)

	// The neighbour gets them, and tags too: within a VLAN it is a wire.
	until(t, "the last frame", func() bool { return slices.Contains(w.seen(neighbour), "mark-last;") })
	for _, want := range []string{"mark-vlan102all;", "mark-asneighbour;", "mark-bpdugroup0;", "mark-plaingroup14;"} {
		if !slices.Contains(w.seen(neighbour), want) {
			t.Errorf("%s does not get to another on its VLAN", want)
		}
	}
	// What one says on VLAN 102 after that comes after what has come from 101.
	var end frames
	end.add("end", everybody, bytesOf("02:00:00:00:00:04"), nothing)
	w.inject(102, "02:00:00:00:00:04", end)
	until(t, "a frame of VLAN 102 itself", func() bool { return slices.Contains(w.seen(other), "mark-end;") })
	if got := w.seen(other); !slices.Equal(got, end.marks) {
		t.Errorf("BROKEN OUT: VLAN 102 sees %q", got)
	}
	for name, watch := range watches {
		for _, mark := range marksOn(t, watch) {
			if mark != "mark-end;" {
				t.Errorf("BROKEN OUT: %s is on %s", mark, name)
			}
		}
	}
	w.unheard(heard)
	if after := w.bridges(); !strings.HasPrefix(after, before) {
		t.Errorf("the bridges change from\n%s\nto\n%s", before, after)
	}
}

// unheard wants the host's sockets to have received nothing.
func (w *wires) unheard(sockets []*net.UDPConn) {
	w.t.Helper()
	for _, c := range sockets {
		if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			w.t.Fatal(err)
		}
		buf := make([]byte, 100)
		if n, _, err := c.ReadFrom(buf); err == nil {
			w.t.Errorf("BROKEN OUT: the host hears %q at %v", buf[:n], c.LocalAddr())
		}
	}
}

// marksOn reads what a socket has received.
func marksOn(t *testing.T, watch *os.File) (marks []string) {
	t.Helper()
	if err := watch.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := watch.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return marks
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, after, ok := bytes.Cut(buf[:n], []byte("mark-")); ok {
			word, _, _ := bytes.Cut(after, []byte(";"))
			marks = append(marks, "mark-"+string(word)+";")
		}
	}
}

// A port that is connected to nothing leads nowhere, and not to the host.
func TestHostileFramesUnplugged(t *testing.T) {
	w := newWires(t)
	hostMAC, heard := w.host()
	const mine = "02:00:00:00:00:01"
	me := "\x02\x00\x00\x00\x00\x01"
	var f frames
	for name, to := range map[string]string{"all": everybody, "nic": string(hostMAC), "group": "\x01\x80\xc2\x00\x00\x02"} {
		f.add("udp"+name, to, me, udp("10.9.0.99", hostIP))
		f.add("arp"+name, to, me, arp(me, "10.9.0.99", hostIP))
		f.add("nd"+name, to, me, solicit(me, "fd09::99", hostIP6))
	}
	w.inject(network.Disconnected, mine, f)
	w.unheard(heard)
}

// A container that sends in the names of many makes a bridge remember some, and
// not fill the host's memory.
func TestHostileAddresses(t *testing.T) {
	w := newWires(t)
	const limit = 1 << 16 // of addresses
	m, port := w.join(101, "02:00:00:00:00:01", "spoof", fmt.Sprint(2*limit))
	w.says(m, "sent")
	out, err := exec.Command("bridge", "fdb", "show", "dev", port.Name).Output()
	if err != nil {
		t.Fatal(err)
	}
	n := bytes.Count(out, []byte("\n"))
	if n > limit+16 && olderThan(t, 6, 7) {
		t.Skip("a bridge of this kernel cannot be told to remember no more")
	}
	if n < limit || n > limit+16 { // its own count, too
		t.Errorf("BROKEN OUT: the bridge remembers %d addresses, the limit is %d", n, limit)
	}
}

func olderThan(t *testing.T, major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a < major || a == major && b < minor
}
