package pcap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	start  = time.Unix(1700000000, 123456789)
	frames = [][]byte{
		[]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x00E\x00\x00\x14"),
		[]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5odd"),
		bytes.Repeat([]byte{7}, 1500),
		{},
	}
	encoders = map[string]Encoder{
		"micro.pcap": Classic{}, "nano.pcap": Classic{Nanoseconds: true}, "a.pcapng": NG{Application: "tester 1"},
	}
)

// sample writes a file of two interfaces, or as many as the format has.
func sample(enc Encoder) []byte {
	b := enc.Header(nil, 1600)
	b = enc.AddInterface(b, Interface{Name: "tap0", About: "VLAN 7", Filter: "tcp port 80", Snaplen: 1600})
	b = enc.AddInterface(b, Interface{Name: "tap1", Snaplen: 1600})
	for i, f := range frames {
		at := start.Add(time.Duration(i) * time.Second)
		cut := min(12, len(f))
		b = enc.Packet(b, i%2, uint32(at.Unix()), uint32(at.Nanosecond()), len(f)+i, f[:cut], f[cut:])
	}
	b = enc.Statistics(b, 0, Statistics{Start: start, End: start.Add(time.Minute), Received: 5, Dropped: 2})
	return enc.Statistics(b, 1, Statistics{End: start.Add(time.Minute), Received: 1, Dropped: -1, Comment: "unknown"})
}

func readAll(t *testing.T, b []byte) ([]Packet, []Interface) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var all []Packet
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, r.Interfaces()
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		all = append(all, p)
	}
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, enc := range encoders {
		packets, ifaces := readAll(t, sample(enc))
		unit, ng := time.Nanosecond, name == "a.pcapng"
		if name == "micro.pcap" {
			unit = time.Microsecond
		}
		if len(packets) != len(frames) {
			t.Fatalf("%s: %d packets", name, len(packets))
		}
		for i, p := range packets {
			want := start.Add(time.Duration(i) * time.Second).Truncate(unit)
			if !bytes.Equal(p.Data, frames[i]) || p.Length != len(frames[i])+i || !p.Time.Equal(want) || ng && p.Interface != i%2 {
				t.Errorf("%s: packet %d: %v", name, i, p)
			}
		}
		want := []Interface{{Snaplen: 1600, LinkType: LinkEthernet}}
		if ng {
			want = []Interface{
				{Name: "tap0", About: "VLAN 7", Filter: "tcp port 80", Snaplen: 1600, LinkType: LinkEthernet,
					Stats: &Statistics{Start: start, End: start.Add(time.Minute), Received: 5, Dropped: 2}},
				{Name: "tap1", Snaplen: 1600, LinkType: LinkEthernet,
					Stats: &Statistics{End: start.Add(time.Minute), Received: 1, Dropped: -1, Comment: "unknown"}},
			}
		}
		if d := cmp.Diff(want, ifaces); d != "" {
			t.Errorf("%s: interfaces: %s", name, d)
		}
	}
}

// tcpdump has to read our files and see the same.
func TestTcpdumpReadsFiles(t *testing.T) {
	for name, enc := range encoders {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, sample(enc), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"-r", path, "-nn", "-tt", "-e", "--time-stamp-precision=nano"}
		out, err := exec.Command("tcpdump", args...).Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var lines []string // of packets, but the empty one, without dumps
		for l := range strings.Lines(string(out)) {
			if strings.HasPrefix(l, "17000000") {
				lines = append(lines, l)
			}
		}
		digits := "123456789"
		if name == "micro.pcap" {
			digits = "123456000"
		}
		if len(lines) != len(frames)-1 || !strings.HasPrefix(lines[0], "1700000000."+digits) || !strings.Contains(lines[1], "0x88b5") ||
			!strings.HasPrefix(lines[2], "1700000002."+digits) || !strings.Contains(lines[2], "length 1502") {
			t.Errorf("%s: %q", name, lines)
		}
	}
}

// We have to read what tcpdump writes, in the other byte order and older versions too.
func TestForeignFiles(t *testing.T) {
	ours := filepath.Join(t.TempDir(), "ours")
	theirs := ours + ".theirs"
	if err := os.WriteFile(ours, sample(Classic{}), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("tcpdump", "-r", ours, "-w", theirs).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r, err := Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = r.Next()
	}
	if !errors.Is(err, io.EOF) || n-1 != len(frames) || r.Close() != nil {
		t.Errorf("%d packets: %v", n-1, err)
	}
	be := binary.BigEndian
	big := be.AppendUint32(nil, magicNano)
	big = append(big, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 0, 0, 0, 1)
	big = append(big, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0, 9, 'h', 'i')
	packets, ifaces := readAll(t, big)
	if len(packets) != 1 || packets[0].Length != 9 || string(packets[0].Data) != "hi" || !packets[0].Time.Equal(time.Unix(5, 6)) || ifaces[0].Snaplen != 99 {
		t.Errorf("%v %v", packets, ifaces)
	}
}

// A section in the other byte order, a clock in powers of two with an offset, a
// simple packet, and a block of an unknown type.
func TestForeignPcapng(t *testing.T) {
	be := binary.BigEndian
	block := func(kind uint32, body ...byte) []byte {
		b := be.AppendUint32(nil, kind)
		b = be.AppendUint32(b, uint32(len(body)+12))
		return be.AppendUint32(append(b, body...), uint32(len(body)+12))
	}
	section := block(blockSection, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255)
	iface := block(blockInterface, 0, 1, 0, 0, 0, 0, 0, 3, 0, 9, 0, 1, 0x8a, 0, 0, 0, 0, 14, 0, 8, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0)
	enhanced := block(blockEnhanced, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 2, 0, 0, 0, 9, 'h', 'i', 0, 0)
	simple := block(blockSimple, 0, 0, 0, 9, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 0, 0, 0)
	unknown := block(0x0bad, 1, 2, 3, 4)
	packets, ifaces := readAll(t, bytes.Join([][]byte{sample(NG{}), section, unknown, iface, enhanced, simple}, nil))
	if len(packets) != len(frames)+2 || len(ifaces) != 3 {
		t.Fatalf("%d packets, %d interfaces", len(packets), len(ifaces))
	}
	p := packets[len(frames)]
	if p.Interface != 2 || string(p.Data) != "hi" || !p.Time.Equal(time.Unix(101, 5e8)) {
		t.Errorf("%v at %v", p, p.Time)
	}
	if s := packets[len(frames)+1]; s.Interface != 2 || string(s.Data) != "abc" || s.Length != 9 {
		t.Errorf("%v", s)
	}
}

func TestBrokenFilesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"empty":           {},
		"short":           {1, 2, 3},
		"other":           []byte("this is not a capture file at all"),
		"header":          sample(Classic{})[:20],
		"version":         append([]byte{0xd4, 0xc3, 0xb2, 0xa1, 9, 0}, make([]byte, 30)...),
		"ng header":       sample(NG{})[:10],
		"ng order":        append([]byte{10, 13, 13, 10, 28, 0, 0, 0, 1, 2, 3, 4}, make([]byte, 30)...),
		"huge block":      {10, 13, 13, 10, 0, 0, 0, 0x7f, 0x4d, 0x3c, 0x2b, 0x1a},
		"section version": {10, 13, 13, 10, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28, 0, 0, 0},
	} {
		_, err := NewReader(bytes.NewReader(b))
		if !errors.Is(err, ErrFormat) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// Wherever a file is cut, its whole packets are read, and Whole and Count agree.
func TestCutFiles(t *testing.T) {
	for name, enc := range encoders {
		b := sample(enc)
		records := b[len(enc.Header(nil, 1600)):]
		for n := range b {
			got := 0
			r, err := NewReader(bytes.NewReader(b[:n]))
			for err == nil {
				if _, err = r.Next(); err == nil {
					got++
				}
			}
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrFormat) {
				t.Fatalf("%s cut at %d: %v", name, n, err)
			}
			part := n - (len(b) - len(records))
			if part < 0 {
				continue
			}
			whole := enc.Whole(records, part)
			packets, size := enc.Count(records[:whole])
			if whole > part || int(packets) != got || whole == part != errors.Is(err, io.EOF) {
				t.Fatalf("%s cut at %d: %d packets read, %d counted in %d of %d bytes: %v", name, n, got, packets, whole, part, err)
			}
			if packets == uint64(len(frames)) && size != 18+17+1500 {
				t.Fatalf("%s: %d bytes", name, size)
			}
		}
	}
}

func TestFormatFollowsTheName(t *testing.T) {
	for name, want := range map[string]string{
		"a.pcap": "pcap.Classic", "a": "pcap.Classic", "a.pcapng.pcap": "pcap.Classic", "a.pcapng": "pcap.NG", "/x/A.PCAPNG": "pcap.NG",
	} {
		if got := fmt.Sprintf("%T", ForFile(name, "")); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, enc := range encoders {
		f.Add(sample(enc))
	}
	f.Add([]byte{10, 13, 13, 10, 0, 0, 0, 28, 0x1a, 0x2b, 0x3c, 0x4d, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 28})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		for range len(b) + 1 { // a record takes a byte at least
			p, err := r.Next()
			if err != nil {
				if n := len(r.Interfaces()); n > len(b) {
					t.Fatalf("%d interfaces from %d bytes", n, len(b))
				}
				return
			}
			if len(p.Data) > len(b) || p.Interface < 0 || p.Interface >= len(r.Interfaces()) || p.Length < 0 {
				t.Fatalf("%+v", p)
			}
		}
		t.Fatal("more packets than bytes")
	})
}
