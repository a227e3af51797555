package inject

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Partition is a part of a disk that can hold a file system.
type Partition struct {
	Number      int   // as Linux counts: primary ones from 1, logical ones from 5
	Start, Size int64 // bytes
}

const (
	sectorSize = 512
	mbrTable   = 446 // of four entries of 16 bytes
	maxLogical = 128
	maxGPT     = 1024
)

// Partitions reads the partition table of a disk: GPT (UEFI specification,
// chapter 5) or MBR with logical partitions. What lies outside of the disk is
// left out. A disk without a table has none.
func Partitions(disk io.ReaderAt, size int64) ([]Partition, error) {
	var mbr [sectorSize]byte
	if _, err := disk.ReadAt(mbr[:], 0); err != nil {
		if err == io.EOF {
			return nil, nil
		}
		return nil, err
	}
	if mbr[510] != 0x55 || mbr[511] != 0xaa || isBootSector(mbr[:]) {
		return nil, nil
	}
	for i := range 4 {
		if entryAt(mbr[:], i).kind == 0xee {
			return gpt(disk, size)
		}
	}
	return mbrPartitions(disk, size, mbr[:])
}

// isBootSector tells file systems that end their first sector like a table.
func isBootSector(b []byte) bool {
	return bytes.HasPrefix(b[54:], []byte("FAT")) || bytes.HasPrefix(b[82:], []byte("FAT")) || bytes.HasPrefix(b[3:], []byte("NTFS")) ||
		bytes.HasPrefix(b[3:], []byte("EXFAT"))
}

// entry is one of an MBR.
type entry struct {
	kind        byte
	start, size int64 // bytes
	valid       bool
}

func entryAt(sector []byte, i int) entry {
	e := sector[mbrTable+16*i:]
	return entry{
		kind:  e[4],
		start: int64(binary.LittleEndian.Uint32(e[8:])) * sectorSize,
		size:  int64(binary.LittleEndian.Uint32(e[12:])) * sectorSize,
		valid: e[0]&0x7f == 0 && e[4] != 0,
	}
}

func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func mbrPartitions(disk io.ReaderAt, size int64, mbr []byte) ([]Partition, error) {
	var all []Partition
	next := 5
	for i := range 4 {
		e := entryAt(mbr, i)
		switch {
		case !e.valid:
		case e.extended():
			logical, err := logicalPartitions(disk, size, e.start, &next)
			if err != nil {
				return nil, err
			}
			all = append(all, logical...)
		default:
			all = appendInside(all, Partition{i + 1, e.start, e.size}, size)
		}
	}
	return sortedByNumber(all), nil
}

// logicalPartitions follows the chain of tables in an extended partition.
func logicalPartitions(disk io.ReaderAt, size, base int64, next *int) ([]Partition, error) {
	var all []Partition
	seen := map[int64]bool{}
	for at := base; at > 0 && at < size && len(seen) < maxLogical && !seen[at]; {
		seen[at] = true
		var b [sectorSize]byte
		if _, err := disk.ReadAt(b[:], at); err != nil {
			return nil, fmt.Errorf("read the partition table at %d: %w", at, err)
		}
		if b[510] != 0x55 || b[511] != 0xaa {
			break
		}
		if e := entryAt(b[:], 0); e.valid && !e.extended() {
			all = appendInside(all, Partition{*next, at + e.start, e.size}, size)
			*next++
		}
		link := entryAt(b[:], 1)
		if !link.valid || !link.extended() {
			break
		}
		at = base + link.start
	}
	return all, nil
}

func gpt(disk io.ReaderAt, size int64) ([]Partition, error) {
	var h [92]byte
	if _, err := disk.ReadAt(h[:], sectorSize); err != nil {
		return nil, fmt.Errorf("read the GPT header: %w", err)
	}
	if string(h[:8]) != "EFI PART" {
		return nil, nil
	}
	lba := binary.LittleEndian.Uint64(h[72:])
	count, length := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	if lba > uint64(size)/sectorSize || count > maxGPT || length < 128 || length > 4096 {
		return nil, fmt.Errorf("GPT of %d entries of %d bytes at sector %d makes no sense", count, length, lba)
	}
	table := make([]byte, int(count)*int(length))
	if _, err := disk.ReadAt(table, int64(lba)*sectorSize); err != nil {
		return nil, fmt.Errorf("read the GPT: %w", err)
	}
	var all []Partition
	for i := range int(count) {
		e := table[i*int(length):]
		first, last := binary.LittleEndian.Uint64(e[32:]), binary.LittleEndian.Uint64(e[40:])
		if bytes.Equal(e[:16], make([]byte, 16)) || last < first || last >= uint64(size)/sectorSize {
			continue
		}
		all = appendInside(all, Partition{i + 1, int64(first) * sectorSize, int64(last-first+1) * sectorSize}, size)
	}
	return all, nil
}

func appendInside(all []Partition, p Partition, size int64) []Partition {
	if p.Start <= 0 || p.Size <= 0 || p.Start > size-p.Size {
		return all
	}
	return append(all, p)
}

func sortedByNumber(all []Partition) []Partition {
	slices.SortFunc(all, func(a, b Partition) int { return cmp.Compare(a.Number, b.Number) })
	return all
}
