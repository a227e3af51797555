package capture

import (
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
)

// links is a LinkSource for tests.
type links struct {
	mu      sync.Mutex
	now     []Link
	changed chan struct{}
	asked   int // times somebody asked since the last change
}

func newLinks(l ...Link) *links { return &links{now: l, changed: make(chan struct{})} }

func (l *links) Links() ([]Link, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return slices.Clone(l.now), l.changed
}

func (l *links) set(now ...Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now, l.asked = now, 0
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *links) taken() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.asked > 0 }

func bridgeSpec(path, filter string) Spec {
	return Spec{Namespace: "ns", Bridge: "br", Path: path, Options: Options{Filter: filter}}
}

// startBridge starts a capture and waits until it receives from its links.
func startBridge(t *testing.T, m *Manager, spec Spec, l *links, probe func([]byte)) {
	t.Helper()
	if err := m.StartLinks(t.Context(), spec, l); err != nil {
		t.Fatal(err)
	}
	settle(t, m, probe)
}

// settle sends probes until one is captured, and then until all are.
func settle(t *testing.T, m *Manager, probe func([]byte)) {
	t.Helper()
	before := total(m)
	eventually(t, "a probe in the file", func() bool { probe(udpFrame(9, 0, 60)); return total(m) > before })
}

func total(m *Manager) (n uint64) {
	for _, i := range m.List() {
		n += i.Packets
	}
	return n
}

// numbers are the numbers of the packets to a UDP port, by VLAN tag or interface.
func numbers(t *testing.T, path string, port uint16) map[int][]int {
	t.Helper()
	all := map[int][]int{}
	packets, _ := read(t, path)
	for _, p := range packets {
		f, key := p.data, p.Interface
		if binary.BigEndian.Uint16(f[12:]) == 0x8100 {
			key, f = int(binary.BigEndian.Uint16(f[14:])), append(slices.Clone(f[:12]), f[16:]...)
		}
		if binary.BigEndian.Uint16(f[36:]) == port {
			all[key] = append(all[key], int(binary.BigEndian.Uint32(f[42:])))
		}
	}
	return all
}

func TestBridgeTagsFramesByLink(t *testing.T) {
	m := newManager(t)
	a, a2 := veth(t)
	b, b2 := veth(t)
	other, other2 := veth(t)
	path := file(t, "br.pcap")
	sendA, sendB, sendOther := sender(t, a2), sender(t, b2), sender(t, other2)
	src := newLinks(Link{Name: a, VLAN: 10}, Link{Name: b, VLAN: 20})
	startBridge(t, m, bridgeSpec(path, ""), src, func(f []byte) { sendA(f) })
	for i := range 50 {
		sendA(udpFrame(7, i, 100))
		sendB(udpFrame(7, i+1000, 100))
		sendOther(udpFrame(7, i+2000, 100))
	}
	sender(t, a)(udpFrame(7, 3000, 100)) // leaves the bridge: seen where it entered
	sendA(tagFrame(udpFrame(7, 0, 100), 0x8100, 5))
	stopAll(t, m, 1)
	got := numbers(t, path, 7)
	if len(got[10]) != 50 || len(got[20]) != 50 || len(got) != 2 || got[20][49] != 1049 {
		t.Fatalf("%v", got)
	}
	if n := len(tcpdump(t, path, "vlan 20 and udp port 7")); n != 50 {
		t.Errorf("tcpdump finds %d packets of VLAN 20", n)
	}
	if n := len(tcpdump(t, path, "vlan 10 and vlan 5 and udp port 7")); n != 1 {
		t.Errorf("tcpdump finds %d frames that carried a tag already", n)
	}
	packets, _ := read(t, path)
	for i := 1; i < len(packets); i++ {
		if packets[i].Time.Before(packets[i-1].Time) {
			t.Fatal("packets of several links are out of order")
		}
	}
	_ = other
}

func TestBridgeLinksComeAndGo(t *testing.T) {
	for _, name := range []string{"br.pcap", "br.pcapng"} {
		m := newManager(t)
		a, a2 := veth(t)
		b, b2 := veth(t)
		path := file(t, name)
		sendA, sendB := sender(t, a2), sender(t, b2)
		src := newLinks(Link{Name: a, VLAN: 10}, Link{Name: "not-there-yet", VLAN: 30})
		startBridge(t, m, bridgeSpec(path, ""), src, func(f []byte) { sendA(f) })
		sendA(udpFrame(7, 1, 100))
		sendB(udpFrame(7, 2, 100)) // not yet a link
		src.set(Link{Name: a, VLAN: 10}, Link{Name: b, VLAN: 20})
		settle(t, m, func(f []byte) { sendB(f) })
		sendA(udpFrame(7, 3, 100))
		sendB(udpFrame(7, 4, 100))
		remove(a)
		src.set(Link{Name: b, VLAN: 21})
		eventually(t, "the new set", src.taken)
		eventually(t, "b on its new VLAN", func() bool { return len(m.List()) == 1 && total(m) > 0 })
		sendB(udpFrame(8, 5, 100))
		settle(t, m, func(f []byte) { sendB(f) })
		sendB(udpFrame(7, 6, 100))
		stopAll(t, m, 1)
		got := numbers(t, path, 7)
		want := map[int][]int{10: {1, 3}, 20: {4}, 21: {6}}
		if name == "br.pcapng" {
			want = map[int][]int{0: {1, 3}, 1: {4}, 2: {6}}
			_, ifaces := read(t, path)
			if len(ifaces) != 3 || ifaces[0].Name != a || ifaces[2].Name != b || ifaces[2].About != "VLAN 21" || ifaces[1].Stats == nil || ifaces[0].Stats.Received < 3 {
				t.Fatalf("%+v", ifaces)
			}
		}
		for key := range want {
			if !slices.Equal(got[key], want[key]) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		if len(tcpdump(t, path, "-c", "1")) != 1 {
			t.Error("tcpdump does not read it")
		}
	}
}

func TestBridgeFilterKnowsTheLinksVLAN(t *testing.T) {
	m := newManager(t)
	a, a2 := veth(t)
	b, b2 := veth(t)
	dir := t.TempDir()
	src := newLinks(Link{Name: a, VLAN: 10}, Link{Name: b, VLAN: 20})
	filters := map[string]int{ // packets to expect
		"udp port 9": 0, "udp port 7": 4, "vlan 20 and udp port 7": 2, "vlan 30": 0, "not vlan": 0,
		"vlan 10 and vlan 5": 1, "vlan and udp port 8": 2, "udp port 7 and vlan 10": 2,
	}
	for f := range filters {
		if err := m.StartLinks(t.Context(), bridgeSpec(dir+"/"+strings.ReplaceAll(f, " ", "_"), f), src); err != nil {
			t.Fatal(err)
		}
	}
	sendA, sendB := sender(t, a2), sender(t, b2)
	eventually(t, "all captures with their links", func() bool { src.mu.Lock(); defer src.mu.Unlock(); return src.asked == len(filters) })
	settle(t, m, func(f []byte) { sendA(f); sendB(f) })
	for i := range 2 {
		sendA(udpFrame(7, i, 100), udpFrame(8, i, 100))
		sendB(udpFrame(7, i, 100))
	}
	sendA(tagFrame(udpFrame(7, 0, 100), 0x8100, 5))
	stopAll(t, m, len(filters))
	for f, want := range filters {
		got := 0
		packets, _ := read(t, dir+"/"+strings.ReplaceAll(f, " ", "_"))
		for _, p := range packets {
			if len(p.data) >= 100 { // not a probe
				got++
			}
		}
		if got != want {
			t.Errorf("%q: %d packets, want %d", f, got, want)
		}
	}
}

func TestHostsOwnFramesOnABridge(t *testing.T) {
	m := newManager(t)
	a, a2 := veth(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "cbr" + a[2:]
	br := &netlink.Bridge{LinkAttrs: attrs}
	if err := netlink.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(attrs.Name) })
	l, err := netlink.LinkByName(a)
	if err == nil {
		err = netlink.LinkSetMaster(l, br)
	}
	if err != nil {
		t.Fatal(err)
	}
	up(t, attrs.Name)
	path := file(t, "br.pcap")
	send, host := sender(t, a2), sender(t, attrs.Name)
	startBridge(t, m, bridgeSpec(path, ""), newLinks(Link{Name: a, VLAN: 3}, Link{Name: attrs.Name, VLAN: 3, Host: true}), func(f []byte) { send(f) })
	send(udpFrame(7, 1, 100))
	host(udpFrame(7, 2, 100))
	stopAll(t, m, 1)
	if got := numbers(t, path, 7)[3]; !slices.Equal(got, []int{1, 2}) {
		t.Errorf("frames %v: each once, wherever it comes from", got)
	}
}

func TestManyLinks(t *testing.T) {
	m := newManager(t)
	var all []Link
	for range 40 {
		a, _ := veth(t)
		all = append(all, Link{Name: a, VLAN: 100 + len(all)})
	}
	last, last2 := veth(t)
	all = append(all, Link{Name: last, VLAN: 7})
	path := file(t, "br.pcap")
	send := sender(t, last2)
	startBridge(t, m, bridgeSpec(path, "udp port 7 or udp port 9"), newLinks(all...), func(f []byte) { send(f) })
	send(udpFrame(7, 1, 100), udpFrame(8, 2, 100))
	stopAll(t, m, 1)
	if got := numbers(t, path, 7)[7]; !slices.Equal(got, []int{1}) {
		t.Errorf("got %v", got)
	}
}
