package capture

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
	"minimega/internal/journal"
)

// standIn in the environment makes the test program a daemon that captures and
// nothing else: it restores what its journal has or starts, says so, and ends
// when its input does.
const standIn = "CAPTURE_TEST_DAEMON"

// order is what the stand-in gets in its environment.
type order struct {
	Dir    string // of the journal
	Path   string // of the file
	Link   string
	Bridge bool // capture the link as one of a bridge
	VLAN   int
}

// told is what it says: a line when it captures, another at its end.
type told struct {
	Restored int
	Infos    []Info
}

func runStandIn(text string) error {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	m := Open(o.Dir, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ctx := context.Background()
	links := func(string) LinkSource { return standing{{Name: o.Link, VLAN: o.VLAN}} }
	n, err := m.Restore(ctx, links)
	if err == nil && n == 0 {
		spec := Spec{Namespace: "ns", VM: "foo", Path: o.Path}
		if o.Bridge {
			spec.Bridge = "bridge"
			err = m.StartLinks(ctx, spec, links(""))
		} else {
			err = m.StartLink(ctx, spec, o.Link)
		}
	}
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(told{n, m.List()}); err != nil {
		return err
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	infos := m.List()
	if err := m.Close(ctx); err != nil {
		return err
	}
	return out.Encode(told{n, infos})
}

// standing are links that never change.
type standing []Link

func (s standing) Links() ([]Link, <-chan struct{}) { return s, nil }

// capturer is a stand-in that runs.
type capturer struct {
	*hosttest.Child
	says *json.Decoder
}

func startCapturer(t *testing.T, o order) (*capturer, told) {
	t.Helper()
	child := hosttest.Again(t, standIn, o)
	c := &capturer{child, json.NewDecoder(child.Out)}
	return c, c.hear(t)
}

func (c *capturer) hear(t *testing.T) (said told) {
	t.Helper()
	if err := c.says.Decode(&said); err != nil {
		t.Fatalf("the stand-in says nothing: %v", err)
	}
	return said
}

// stop ends it as a daemon ends, and returns what it said.
func (c *capturer) stop(t *testing.T) told {
	t.Helper()
	_ = c.In.Close()
	said := c.hear(t)
	if err := c.Cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return said
}

// numbered floods an interface with numbered packets, a burst for each call of
// more, until it is told to stop, and returns how many there were.
func numbered(t *testing.T, ifname string) (more func(), stop func() int) {
	send := sender(t, ifname)
	done := make(chan struct{})
	n := 0
	var allowed atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for range 25 {
				if int64(n) < allowed.Load() {
					send(udpFrame(7, n, 400))
					n++
				}
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() { allowed.Add(burst) }, func() int { close(done); wg.Wait(); return n }
}

// Bursts of all rounds find room in a ring, should nobody come to read it on a
// busy machine.
const (
	rounds = 8
	burst  = 16 << 20 / 500 / (rounds + 1)
)

// A process that captures may be killed at any moment: the next one goes on, and
// every packet is in the file once, those of the time between as well.
func TestSurvivesBeingKilled(t *testing.T) {
	for _, o := range []order{{Path: "a.pcap"}, {Path: "a.pcapng"}, {Path: "b.pcap", Bridge: true, VLAN: 5}, {Path: "b.pcapng", Bridge: true}} {
		t.Run(o.Path, func(t *testing.T) {
			a, b := veth(t)
			dir := t.TempDir()
			hosttest.Machine{Marks: []string{dir}}.Check(t)
			o.Dir, o.Path, o.Link = filepath.Join(dir, "journal"), filepath.Join(dir, o.Path), a
			c, _ := startCapturer(t, o)
			more, flooded := numbered(t, b)
			for range rounds {
				more()
				time.Sleep(rand.N(200 * time.Millisecond)) // the moment is the test's subject
				c.Kill()
				var said told
				if c, said = startCapturer(t, o); said.Restored != 1 {
					t.Fatalf("%d captures restored", said.Restored)
				}
			}
			more()
			n := flooded()
			said := c.stop(t)
			if len(said.Infos) != 1 || said.Infos[0].Drops != 0 {
				t.Errorf("%+v", said.Infos)
			}
			once(t, o.Path, n)
		})
	}
}

// once checks that the packets 0 to n-1 are in a file in their order.
func once(t *testing.T, path string, n int) {
	t.Helper()
	packets, _ := read(t, path)
	for i, p := range packets {
		f := p.data
		if binary.BigEndian.Uint16(f[12:]) == tpidDefault {
			f = f[4:]
		}
		if got := binary.BigEndian.Uint32(f[42:]); int(got) != i {
			t.Fatalf("packet %d of the file is number %d", i, got)
		}
	}
	if len(packets) != n {
		t.Fatalf("%d packets in the file, %d sent", len(packets), n)
	}
	t.Logf("%d packets, each once", n)
}

// A wire faster than the file: what found no room is counted across the deaths,
// and nothing is in the file twice.
func TestDropsAreCountedAcrossDeaths(t *testing.T) {
	a, b := veth(t)
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.pcapng"), Link: a}
	c, _ := startCapturer(t, o)
	send := sender(t, b)
	n := 0
	for range 4 {
		for range 20000 { // more than a ring holds
			send(udpFrame(7, n, 1400))
			n++
		}
		c.Kill()
		for range 15000 {
			send(udpFrame(7, n, 1400))
			n++
		}
		c, _ = startCapturer(t, o)
	}
	said := c.stop(t)
	packets, ifaces := read(t, o.Path)
	last := -1
	for _, p := range packets {
		number := int(binary.BigEndian.Uint32(p.data[42:]))
		if number <= last {
			t.Fatalf("number %d after %d", number, last)
		}
		last = number
	}
	drops := int(said.Infos[0].Drops)
	if len(packets)+drops != n || drops == 0 {
		t.Errorf("%d packets in the file, %d dropped, %d sent", len(packets), drops, n)
	}
	if s := ifaces[0].Stats; len(ifaces) != 1 || s == nil || s.Received != int64(n) || s.Dropped != int64(drops) {
		t.Errorf("statistics %+v", ifaces)
	}
}

// What an interface had passed on before it went while nobody watched is in the
// file, and the capture is over.
func TestInterfaceGoneMeanwhile(t *testing.T) {
	for _, first := range []string{"down", "up"} {
		a, b := veth(t)
		dir := t.TempDir()
		hosttest.Machine{Marks: []string{dir}}.Check(t)
		o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.pcap"), Link: a}
		c, _ := startCapturer(t, o)
		c.Kill()
		send := sender(t, b)
		for i := range 10 {
			send(udpFrame(7, i, 100))
		}
		if first == "down" {
			setDown(t, a)
		}
		remove(a)
		m := Open(o.Dir, slog.New(slog.NewTextHandler(&logWriter{t}, nil)))
		if n, err := m.Restore(t.Context(), nil); n != 1 || err != nil {
			t.Errorf("%d restored, %v", n, err)
		}
		eventually(t, "the end of the capture", func() bool { return len(m.List()) == 0 })
		once(t, o.Path, 10)
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A holder whose capture had ended, or is not wanted, ends.
func TestHoldersEnd(t *testing.T) {
	a, _ := veth(t)
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.pcap"), Link: a}
	held := func() int {
		found, err := holders(o.Dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	for _, end := range []func(*Manager) error{
		func(m *Manager) error {
			lines, err := m.Forget()
			if len(lines) != 1 || lines[0] != "capture to "+o.Path {
				t.Errorf("forgot %q", lines)
			}
			return err
		},
		func(m *Manager) error { // killed between the end of a capture and that of its holder
			if _, err := journal.Drop(m.journal, func(saved) string { return "" }); err != nil {
				return err
			}
			n, err := m.Restore(t.Context(), nil)
			if n != 0 {
				t.Errorf("%d restored", n)
			}
			return err
		},
	} {
		c, _ := startCapturer(t, o)
		c.Kill()
		if held() != 1 {
			t.Errorf("%d holders", held())
		}
		if err := end(Open(o.Dir, slog.New(slog.DiscardHandler))); err != nil || held() != 0 {
			t.Errorf("%d holders, %v", held(), err)
		}
	}
}

// A capture whose holder was killed, too, goes on without what the ring had.
func TestHolderGone(t *testing.T) {
	a, b := veth(t)
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.pcap"), Link: a}
	c, _ := startCapturer(t, o)
	c.Kill()
	found, err := holders(o.Dir)
	if err != nil || endHolders(found) != nil {
		t.Fatal(found, err)
	}
	c, said := startCapturer(t, o)
	if said.Restored != 1 {
		t.Errorf("%+v", said)
	}
	sender(t, b)(udpFrame(7, 0, 100))
	c.stop(t)
	once(t, o.Path, 1)
}

// A holder costs next to nothing.
func TestHolderIsSmall(t *testing.T) {
	a, _ := veth(t)
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	m := Open(filepath.Join(dir, "journal"), slog.New(slog.DiscardHandler))
	if err := m.StartLink(t.Context(), vmSpec(filepath.Join(dir, "a.pcap"), Options{}), a); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.captures[0].holder.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	var kib int
	if _, err := fmt.Sscan(after, &kib); err != nil || kib > 128 {
		t.Errorf("%d KiB, %v", kib, err)
	}
	t.Logf("%d KiB", kib)
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The file was moved away, or another took its name, while nobody watched: what
// is somebody else's stays as it is.
func TestFileIsAnotherNow(t *testing.T) {
	for _, foreign := range []string{"", strings.Repeat("not a capture ", 100)} {
		a, b := veth(t)
		dir := t.TempDir()
		hosttest.Machine{Marks: []string{dir}}.Check(t)
		o := order{Dir: filepath.Join(dir, "journal"), Path: filepath.Join(dir, "a.pcap"), Link: a}
		c, _ := startCapturer(t, o)
		c.Kill()
		sender(t, b)(udpFrame(7, 0, 100))
		if err := os.Rename(o.Path, o.Path+".old"); err != nil {
			t.Fatal(err)
		}
		if foreign != "" {
			if err := os.WriteFile(o.Path, []byte(foreign), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		m := Open(o.Dir, slog.New(slog.DiscardHandler))
		n, err := m.Restore(t.Context(), nil)
		if wrong := foreign != ""; wrong != (err != nil) || wrong != (n == 0) {
			t.Errorf("%d restored, %v", n, err)
		}
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if foreign == "" {
			once(t, o.Path, 1)
		} else if got, err := os.ReadFile(o.Path); string(got) != foreign {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
}
