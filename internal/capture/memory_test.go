package capture

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"minimega/internal/capture/pcap"
)

// left is a capture that was killed with chunks between ring and file.
type left struct {
	enc  pcap.Encoder
	path string
	want []byte // the whole file
}

// leave fills so many chunks and a bit of which it writes some, and a part of
// the next.
func leave(t *testing.T, enc pcap.Encoder, mem *memory, chunks, written, part int) left {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := enc.AddInterface(enc.Header(nil, 1600), pcap.Interface{Name: "x", Snaplen: 1600})
	if err := begin(f, head); err != nil {
		t.Fatal(err)
	}
	mem.file.store(record4{0, uint64(len(head)), 0, 0})
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	*mem.word(wordInode) = inode(info)
	s := &sink{file: f, enc: enc, mem: mem, queue: make(chan chunk, chunkQueue), cur: chunk{number: 1}}
	want := bytes.Clone(head)
	add := func(n int) {
		s.reserve(blockSize)
		data := bytes.Repeat([]byte{byte(n)}, 1000)
		for range 100 {
			s.packet(0, 1, uint32(n), 1000, nil, data)
			want = enc.Packet(want, 0, 1, uint32(n), 1000, nil, data)
		}
	}
	blocks := 0
	for ; s.cur.number <= uint64(chunks); blocks++ {
		add(blocks)
		s.commit(uint64(blocks + 1))
	}
	// A block that was not taken to its end does not count.
	kept := len(want)
	add(blocks)
	want = want[:kept]
	for range written {
		if err := s.put(<-s.queue); err != nil {
			t.Fatal(err)
		}
	}
	if part > 0 {
		if _, err := f.WriteAt((<-s.queue).b[:part], int64(mem.file.current()[1])); err != nil {
			t.Fatal(err)
		}
	}
	return left{enc, path, want}
}

// Whatever had been written of the chunks, the file is whole afterwards, and a
// second death on the way changes nothing.
func TestProceed(t *testing.T) {
	for _, enc := range []pcap.Encoder{pcap.Classic{}, pcap.NG{}} {
		for _, c := range []struct{ chunks, written, part int }{{0, 0, 0}, {1, 0, 0}, {1, 1, 0}, {3, 1, 1}, {5, 2, 777777}, {30, 0, 5000}} {
			mem, shared, err := newMemory()
			if err != nil {
				t.Fatal(err)
			}
			l := leave(t, enc, mem, c.chunks, c.written, c.part)
			again, err := openMemory(shared)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				l.proceed(t, again)
			}
			for _, m := range []*memory{mem, again} {
				if err := m.close(); err != nil {
					t.Error(err)
				}
			}
			_ = shared.Close()
		}
	}
}

func (l left) proceed(t *testing.T, mem *memory) {
	t.Helper()
	f, err := os.OpenFile(l.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := &resumption{kept: &kept{}}
	if done, err := r.proceed(mem, f, l.enc); !done || err != nil {
		t.Fatal(done, err)
	}
	got, err := os.ReadFile(l.path)
	if err != nil || !bytes.Equal(got, l.want) {
		t.Fatalf("%d bytes in the file, want %d; %v", len(got), len(l.want), err)
	}
	packets, _ := count(t, l.path)
	if now := mem.file.current(); now[1] != uint64(len(got)) || now[2] != packets || now[3] != 1000*packets {
		t.Errorf("%v noted of %d packets", now, packets)
	}
}

// A cell has the whole of the old or of the new record, whenever one looks.
func TestCell(t *testing.T) {
	c := cell{new([9]uint64)}
	for i := uint64(1); i < 10; i++ {
		before := *c.current()
		c.words[1+4*(1-c.words[0]&1)] = 99 // a store that was cut short
		if *c.current() != before {
			t.Fatalf("%v, want %v", *c.current(), before)
		}
		c.store(record4{i, i, i, i})
		if *c.current() != (record4{i, i, i, i}) {
			t.Fatalf("%v", *c.current())
		}
	}
}

func TestForeignMemory(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, memorySize - 1, memorySize} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := openMemory(f); err == nil {
			t.Errorf("%d bytes were taken", size)
		}
	}
}

// Links with their past come back as they were.
func TestLinksAreKept(t *testing.T) {
	mem, shared, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.close(); _ = shared.Close() }()
	for i := range 3 {
		want := map[int]*link{7: {Link: Link{Name: "a", VLAN: i}, Before: &link{Link: Link{Name: "a", VLAN: 9, Host: true}}}}
		if err := mem.keepLinks(want); err != nil {
			t.Fatal(err)
		}
		got := map[int]*link{}
		if err := mem.keptLinks(&got); err != nil || len(got) != 1 || got[7].Link != want[7].Link || got[7].Before.Link != want[7].Before.Link {
			t.Errorf("%+v %v", got[7], err)
		}
	}
}

// A burst takes memory only as long as it lasts.
func TestMemoryIsGivenBack(t *testing.T) {
	mem, shared, err := newMemory()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.close(); _ = shared.Close() }()
	l := leave(t, pcap.Classic{}, mem, 20, 0, 0)
	l.proceed(t, mem)
	for slot := range 20 {
		mem.give(slot, chunkSize)
	}
	before := used(t, shared)
	mem.trim()
	if now := used(t, shared); before < 12<<20 || now > 2<<20 {
		t.Errorf("%d KiB before, %d KiB now", before>>10, now>>10)
	}
}

func used(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}
