package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

func TestLinkIsCapturedInBothFormats(t *testing.T) {
	for _, name := range []string{"a.pcap", "a.pcapng"} {
		t.Run(name, func(t *testing.T) {
			m := newManager(t)
			a, b := veth(t)
			path := file(t, name)
			if err := m.StartLink(t.Context(), vmSpec(path, Options{Snaplen: 60, Filter: "udp port 7"}), a); err != nil {
				t.Fatal(err)
			}
			send, back := sender(t, b), sender(t, a)
			for i := range 100 {
				send(udpFrame(7, i, 200), udpFrame(8, i, 200))
			}
			back(udpFrame(7, 100, 200)) // what goes out counts too
			stopAll(t, m, 1)
			packets, ifaces := read(t, path)
			if len(packets) != 101 || len(tcpdump(t, path)) != 101 || len(tcpdump(t, path, "udp port 7")) != 101 {
				t.Fatalf("%d packets, tcpdump reads %d", len(packets), len(tcpdump(t, path)))
			}
			for i, p := range packets {
				if len(p.data) != 60 || p.Length != 200 || binary.BigEndian.Uint32(p.data[42:]) != uint32(i) {
					t.Fatalf("packet %d: %d of %d bytes: %x", i, len(p.data), p.Length, p.data)
				}
				if age := time.Since(p.Time); age < 0 || age > time.Minute {
					t.Fatalf("packet %d at %v", i, p.Time)
				}
			}
			if name == "a.pcapng" {
				i := ifaces[0]
				if i.Name != a || i.Filter != "udp port 7" || i.Stats == nil || i.Stats.Received != 101 || i.Stats.Dropped != 0 {
					t.Fatalf("interface %+v, statistics %+v", i, i.Stats)
				}
			}
		})
	}
}

func TestListShowsWhatRuns(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcap")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	send := sender(t, b)
	for i := range 10 {
		send(udpFrame(7, i, 100))
	}
	eventually(t, "packets in the file", func() bool { return m.List()[0].Packets == 10 })
	if packets, _ := read(t, path); len(packets) != 10 {
		t.Errorf("%d packets in the file of a running capture", len(packets))
	}
	i := m.List()[0]
	if i.VM != "foo" || i.VMID != 7 || i.Kind != KindPcap || i.Snaplen != 1600 || i.Path != path || i.Bytes != 1000 || i.Drops != 0 || i.Err != nil {
		t.Errorf("info %+v", i)
	}
	if n, err := m.Stop(t.Context(), func(s Spec) bool { return s.VM == "bar" }); n != 0 || err != nil || len(m.List()) != 1 {
		t.Errorf("stopped %d captures of another VM: %v", n, err)
	}
	if n, err := m.Stop(t.Context(), func(s Spec) bool { return s.VM == "foo" }); n != 1 || err != nil || len(m.List()) != 0 {
		t.Errorf("stopped %d captures: %v", n, err)
	}
}

// mixed are frames untagged, tagged once and twice, some cut short.
func mixed() [][]byte {
	var all [][]byte
	for i := range 8 {
		u := udpFrame(80+i%2, i, 100)
		all = append(all, u, tagFrame(u, 0x8100, 5), tagFrame(u, 0x8100, 0x6010),
			tagFrame(tagFrame(u, 0x8100, 10), 0x88a8, 5), tagFrame(tagFrame(u, 0x8100, 5), 0x8100, 10), u[:40])
	}
	return all
}

// The kernel takes tags out of frames; a file, and what a filter selects, must
// be as if it did not.
func TestTagsAreKeptAndFiltered(t *testing.T) {
	filters := []string{"", "vlan", "vlan 5", "not vlan", "vlan 5 and udp port 80", "udp port 80", "vlan and vlan",
		"vlan 5 and vlan 10", "ether proto 0x8100", "len > 102", "ip", "vlan and udp[0:2] = 5000", "ether[12:2] = 0x88a8", "greater 100 and vlan"}
	for _, direction := range []string{"in", "out"} {
		t.Run(direction, func(t *testing.T) {
			m := newManager(t)
			a, b := veth(t)
			dir := t.TempDir()
			path := func(i int) string { return fmt.Sprintf("%s/%d.pcap", dir, i) }
			for i, f := range filters {
				if err := m.StartLink(t.Context(), vmSpec(path(i), Options{Filter: f}), a); err != nil {
					t.Fatal(err)
				}
			}
			from := b
			if direction == "out" {
				from = a
			}
			sender(t, from)(mixed()...)
			stopAll(t, m, len(filters))
			all, _ := read(t, path(0))
			for i, f := range mixed() {
				if i >= len(all) || string(all[i].data) != string(f) || all[i].Length != len(f) {
					t.Fatalf("frame %d of %d is not as sent", i, len(all))
				}
			}
			for i, f := range filters[1:] {
				got, want := tcpdump(t, path(i+1)), tcpdump(t, path(0), f)
				if len(want) == 0 || !reflect.DeepEqual(got, want) {
					t.Errorf("%q captured %d packets, tcpdump selects %d", f, len(got), len(want))
				}
			}
		})
	}
}

func TestSnaplenHoldsForTaggedFrames(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcapng")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{Snaplen: 14, Filter: "udp port 80 or vlan"}), a); err != nil {
		t.Fatal(err)
	}
	f := tagFrame(udpFrame(80, 1, 100), 0x8100, 5)
	sender(t, b)(f)
	stopAll(t, m, 1)
	packets, _ := read(t, path)
	if len(packets) != 1 || string(packets[0].data) != string(f[:14]) || packets[0].Length != 104 {
		t.Fatalf("%+v", packets)
	}
}

func TestDeletedInterfaceEndsCapture(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcap")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	send := sender(t, b)
	for i := range 50 {
		send(udpFrame(7, i, 100))
	}
	remove(a)
	eventually(t, "capture off the list", func() bool { return len(m.List()) == 0 })
	if packets, _ := read(t, path); len(packets) != 50 {
		t.Fatalf("%d packets", len(packets))
	}
}

func TestCaptureSurvivesLinkDown(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcap")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	send := sender(t, b)
	send(udpFrame(7, 1, 100))
	setDown(t, a)
	up(t, a)
	eventually(t, "a packet after the link came back", func() bool {
		send(udpFrame(7, 2, 100))
		return m.List()[0].Packets >= 2
	})
}

func TestRefusedCaptureChangesNothing(t *testing.T) {
	m := newManager(t)
	a, _ := veth(t)
	dir := t.TempDir()
	old := dir + "/old.pcap"
	if err := os.WriteFile(old, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, iface string
		o           Options
		kind        errs.Kind
		text        string
	}{
		{dir + "/x", a, Options{Filter: "tcp prot 80"}, errs.Invalid, `"prot"`},
		{old, a, Options{Filter: "("}, errs.Invalid, "filter"},
		{dir + "/x", "nosuch0", Options{}, errs.NotFound, "nosuch0"},
		{old, "nosuch0", Options{}, errs.NotFound, "nosuch0"},
		{dir + "/x", "a name that is far too long", Options{}, errs.NotFound, "far too long"},
		{dir + "/no/x", a, Options{}, errs.NotFound, "/no/x"},
		{dir, a, Options{}, errs.Invalid, dir},
		{dir + "/fifo", a, Options{}, errs.Invalid, "fifo"},
		{old + "/x", a, Options{}, errs.Invalid, "old.pcap/x"},
		{"", a, Options{}, errs.Invalid, "needs a file"},
		{dir + "/x", a, Options{Snaplen: -1}, errs.Invalid, "snaplen"},
		{dir + "/x", a, Options{Snaplen: 1 << 30}, errs.Invalid, "snaplen"},
	} {
		err := m.StartLink(t.Context(), vmSpec(c.path, c.o), c.iface)
		if err == nil || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if b, _ := os.ReadFile(old); string(b) != "old" {
		t.Errorf("file that existed holds %q", b)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 || len(m.List()) != 0 {
		t.Errorf("left behind: %v %v", entries, m.List())
	}
	if err := m.StartLink(t.Context(), vmSpec(old, Options{}), a); err != nil {
		t.Errorf("good request after bad ones: %v", err)
	}
}

func TestOneCaptureToAFile(t *testing.T) {
	m := newManager(t)
	a, _ := veth(t)
	dir := t.TempDir()
	path, hard, soft := dir+"/a.pcap", dir+"/hard.pcap", dir+"/soft.pcap"
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Link(path, hard), os.Symlink(path, soft)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, hard, soft, dir + "/../" + dir[strings.LastIndex(dir, "/")+1:] + "/a.pcap"} {
		if err := m.StartLink(t.Context(), vmSpec(p, Options{}), a); !errors.Is(err, errs.Exists) || !strings.Contains(err.Error(), "already") {
			t.Errorf("%s: %v", p, err)
		}
	}
	stopAll(t, m, 1)
	if len(tcpdump(t, path)) != 0 {
		t.Error("packets from nowhere")
	}
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Errorf("again after its end: %v", err)
	}
}

func TestFullDiskEndsCaptureWithReadableFile(t *testing.T) {
	for _, name := range []string{"a.pcap", "a.pcapng"} {
		m := newManager(t)
		a, b := veth(t)
		dir := t.TempDir()
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		path := dir + "/" + name
		if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
			t.Fatal(err)
		}
		send := sender(t, b)
		for i := range 3000 {
			send(udpFrame(7, i, 1001))
		}
		eventually(t, "the error in the list", func() bool { return m.List()[0].Err != nil })
		i := m.List()[0]
		if !errors.Is(i.Err, errs.Resource) || !errors.Is(i.Err, unix.ENOSPC) || !strings.Contains(i.Err.Error(), path) {
			t.Errorf("error %v", i.Err)
		}
		packets, _ := read(t, path)
		if uint64(len(packets)) != i.Packets || i.Packets < 1500 || i.Bytes != 1001*i.Packets || len(tcpdump(t, path)) != len(packets) {
			t.Errorf("%d packets in the file, %d counted", len(packets), i.Packets)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
			t.Errorf("again with room: %v", err)
		}
		stopAll(t, m, 2)
	}
}

func TestClosedManagerRefuses(t *testing.T) {
	m := newManager(t)
	a, _ := veth(t)
	path := file(t, "a.pcap")
	if err := m.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); !errors.Is(err, errs.State) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("file left behind")
	}
}
