package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What lies between ring and file is in memory that outlives the process: a
// file in memory which the holder keeps open beside the socket. It has
//
//	a page: what it is, four cells, number and length of the chunk in each slot
//	slots for chunks, which take memory only while they are used
//	two places for the links of a bridge, as JSON
//
// A process that is killed between any two instructions leaves it in order:
// data is written first, and counts from the moment a cell says so.
const (
	memoryMark   = 0x31706163676d6d // changes with the layout
	memorySlots  = chunkQueue + 2   // one is filled, one written, the others wait
	memoryHead   = 4096
	cellsAt      = 64
	cellRoom     = 128
	slotsAt      = 1024
	slotWords    = 2
	linksMost    = 1 << 20
	linksAt      = memoryHead + memorySlots*chunkSize
	memorySize   = linksAt + 2*linksMost
	trimsFrom    = chunkStart // a slot that held no more is left as it is
	wordMark     = 0
	wordBlocks   = 1 // of the ring
	wordBound    = 2 // interface index
	wordInode    = 3 // of the capture's file
	noSlot       = memorySlots
	memoryName   = "minimega-capture"
	memoryUnused = -1
)

// memory is that file, mapped.
type memory struct {
	mem []byte
	// reader is where the reader of the ring is: blocks taken, and the number,
	// slot and length of the chunk that it fills.
	reader cell
	// file is where the writer is: chunks written, the length of the file with
	// them, and the packets and their bytes in it.
	file cell
	// counts are the packets that the ring took and those it had no room for, up
	// to the kernel's last answer, which is in the other two words.
	counts cell
	links  cell // which of the places for links, and their length

	mu    sync.Mutex // guards the fields below
	free  []int      // slots; the last is used next
	dirty bool       // free slots take memory
}

// cell holds four words that change all at once. It belongs to one goroutine
// or lock.
type cell struct{ words *[9]uint64 }

type record4 = [4]uint64

// current is the record that counts.
func (c cell) current() *record4 {
	return (*record4)(c.words[1+4*(atomic.LoadUint64(&c.words[0])&1):])
}

func (c cell) store(r record4) {
	next := 1 - atomic.LoadUint64(&c.words[0])&1
	*(*record4)(c.words[1+4*next:]) = r
	atomic.StoreUint64(&c.words[0], next)
}

// newMemory makes the memory of a capture that begins.
func newMemory() (*memory, *os.File, error) {
	fd, err := unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 there was no such thing
		fd, err = unix.MemfdCreate(memoryName, unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, nil, os.NewSyscallError("memory of a capture", err)
	}
	f := os.NewFile(uintptr(fd), memoryName)
	if err := f.Truncate(memorySize); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	m, err := mapMemory(f)
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	*m.word(wordMark) = memoryMark
	m.reader.store(record4{0, 1, noSlot, 0})
	return m, f, nil
}

// openMemory maps what an earlier process left, if it can be understood.
func openMemory(f *os.File) (*memory, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() != memorySize {
		return nil, errors.New("it was kept by another version of minimega")
	}
	m, err := mapMemory(f)
	if err != nil {
		return nil, err
	}
	if *m.word(wordMark) != memoryMark {
		return nil, errors.Join(errors.New("it was kept by another version of minimega"), m.close())
	}
	return m, nil
}

func mapMemory(f *os.File) (*memory, error) {
	mem, err := unix.Mmap(int(f.Fd()), 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("map memory of a capture", err)
	}
	m := &memory{mem: mem}
	for i, c := range []*cell{&m.reader, &m.file, &m.counts, &m.links} {
		c.words = (*[9]uint64)(unsafe.Pointer(&mem[cellsAt+i*cellRoom]))
	}
	for slot := range memorySlots {
		m.free = append(m.free, memorySlots-1-slot)
	}
	return m, nil
}

func (m *memory) close() error { return unix.Munmap(m.mem) }

func (m *memory) word(i int) *uint64 { return (*uint64)(unsafe.Pointer(&m.mem[8*i])) }

// label is the number and length of the chunk in a slot.
func (m *memory) label(slot int) *[slotWords]uint64 {
	return (*[slotWords]uint64)(unsafe.Pointer(&m.mem[slotsAt+8*slotWords*slot]))
}

func (m *memory) slot(slot int) []byte {
	at := memoryHead + slot*chunkSize
	return m.mem[at : at+chunkSize : at+chunkSize]
}

// take returns a free slot. There is one: the queue is shorter than the slots.
func (m *memory) take() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := m.free[len(m.free)-1]
	m.free = m.free[:len(m.free)-1]
	return slot
}

// give makes a slot free of which so many bytes were used.
func (m *memory) give(slot, used int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free = append(m.free, slot)
	m.dirty = m.dirty || used > trimsFrom
}

// trim gives the memory of free slots back.
func (m *memory) trim() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		return
	}
	m.dirty = false
	for _, slot := range m.free {
		_ = unix.Madvise(m.slot(slot), unix.MADV_REMOVE) // else it is used again
	}
}

// pending returns the chunks that did not reach the file, in their order.
func (m *memory) pending() ([]chunk, error) {
	var list []chunk
	reader, done := *m.reader.current(), m.file.current()[0]
	for n := done + 1; n < reader[1]; n++ {
		slot := m.find(n)
		if slot == memoryUnused {
			return nil, fmt.Errorf("chunk %d of %d is not in memory", n, reader[1])
		}
		list = append(list, chunk{number: n, slot: slot, b: m.slot(slot)[:min(m.label(slot)[1], chunkSize)]})
	}
	if n, slot, length := reader[1], reader[2], reader[3]; n > done && length > 0 && length <= chunkSize && slot < memorySlots {
		list = append(list, chunk{number: n, slot: int(slot), b: m.slot(int(slot))[:length]})
	}
	return list, nil
}

func (m *memory) find(number uint64) int {
	for slot := range memorySlots {
		if m.label(slot)[0] == number {
			return slot
		}
	}
	return memoryUnused
}

// keepLinks notes the links of a bridge. They are left out when they are too many.
func (m *memory) keepLinks(v any) error {
	b, err := json.Marshal(v)
	if err != nil || len(b) > linksMost {
		m.links.store(record4{})
		return err
	}
	next := 1 - m.links.current()[0]&1
	copy(m.mem[linksAt+next*linksMost:], b)
	m.links.store(record4{next, uint64(len(b))})
	return nil
}

// keptLinks reads them into v.
func (m *memory) keptLinks(v any) error {
	r := m.links.current()
	if r[1] == 0 {
		return nil
	}
	at := linksAt + int(r[0]&1)*linksMost
	return json.Unmarshal(m.mem[at:at+int(min(r[1], linksMost))], v)
}
