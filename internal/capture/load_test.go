package capture

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"minimega/internal/capture/pcap"
)

// flood sends n frames as fast as the machine can.
func flood(t *testing.T, ifname string, n, size int) {
	send := sender(t, ifname)
	f := udpFrame(7, 0, size)
	for range n {
		send(f)
	}
}

// Every packet of a saturated link is in the file or counted as dropped.
func TestSaturatedLinkIsAccountedFor(t *testing.T) {
	const n = 200000
	for _, name := range []string{"a.pcap", "a.pcapng"} {
		m := newManager(t)
		a, b := veth(t)
		path := file(t, name)
		if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
			t.Fatal(err)
		}
		flood(t, b, n, 1000)
		eventually(t, "all packets", func() bool { i := m.List()[0]; return i.Packets+i.Drops == n })
		i := m.List()[0]
		stopAll(t, m, 1)
		packets, ifaces := count(t, path)
		if packets != i.Packets || i.Bytes != 1000*i.Packets {
			t.Errorf("%d packets in the file, info says %+v", packets, i)
		}
		if name == "a.pcapng" && (ifaces[0].Stats.Received != n || ifaces[0].Stats.Dropped != int64(i.Drops)) {
			t.Errorf("statistics %+v, %d dropped", ifaces[0].Stats, i.Drops)
		}
		t.Logf("%s: %d sent, %d captured, %d dropped", name, n, i.Packets, i.Drops)
	}
}

func count(t *testing.T, path string) (n uint64, ifaces []pcap.Interface) {
	t.Helper()
	r, err := pcap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	for {
		if _, err = r.Next(); err != nil {
			break
		}
		n++
	}
	if !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return n, r.Interfaces()
}

// A ring that nobody reads fills; what found no room is counted, no more and no less.
func TestDropsAreCounted(t *testing.T) {
	const n = 20000
	a, b := veth(t)
	m, shared, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(shared.Close(), m.close()) }()
	r, err := openRing(minBlocks, m)
	if err != nil {
		t.Fatal(err)
	}
	index, err := linkIndex(a)
	if err == nil {
		err = errors.Join(r.filter(acceptUpTo(1600)), r.bind(index))
	}
	if err != nil {
		t.Fatal(err)
	}
	flood(t, b, n, 1500)
	received, dropped := r.stats()
	if received+dropped != n || dropped == 0 || received == 0 {
		t.Errorf("%d received, %d dropped of %d", received, dropped, n)
	}
	seen := uint64(0)
	for r.ready() || r.pending() {
		for ; r.ready(); r.release() {
			r.walk(func(*packet) { seen++ })
		}
	}
	if seen != received {
		t.Errorf("%d packets in the ring, %d counted", seen, received)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if again, _ := r.stats(); again != received {
		t.Errorf("counter after close: %d", again)
	}
}

// A file can be read at any moment while packets pour in: whoever dies, it is whole.
func TestFileIsReadableAtAnyMoment(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcapng")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	for round := range 10 {
		flood(t, b, 1000, 700)
		copied := file(t, "copy.pcapng")
		whole, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(copied, whole, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := pcap.Open(copied)
		for err == nil {
			_, err = r.Next()
		}
		// A write under way may show in part, at the end only.
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("round %d: %v", round, err)
		}
		_ = r.Close()
	}
}

// A flood does not keep a capture from ending.
func TestCaptureStopsUnderLoad(t *testing.T) {
	m := newManager(t)
	a, b := veth(t)
	path := file(t, "a.pcap")
	if err := m.StartLink(t.Context(), vmSpec(path, Options{}), a); err != nil {
		t.Fatal(err)
	}
	done, send := make(chan struct{}), sender(t, b)
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for f := udpFrame(7, 0, 1000); ; {
			select {
			case <-done:
				return
			default:
				send(f)
			}
		}
	})
	eventually(t, "packets", func() bool { return m.List()[0].Packets > 20000 })
	begin := time.Now()
	stopAll(t, m, 1)
	took := time.Since(begin)
	close(done)
	flooding.Wait()
	if took > time.Minute {
		t.Errorf("took %v", took)
	}
	if n, _ := count(t, path); n < 20000 {
		t.Errorf("%d packets", n)
	}
}

func TestRingsShareMemory(t *testing.T) {
	total := 0
	for n := range 300 {
		blocks := ringBlocks(n)
		if n < 8 && blocks != maxBlocks || blocks < minBlocks || blocks > maxBlocks {
			t.Errorf("capture %d: %d blocks", n+1, blocks)
		}
		total += blocks * blockSize
	}
	if total > 900<<20 {
		t.Errorf("300 captures take %d MiB", total>>20)
	}
}
