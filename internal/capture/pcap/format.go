// Package pcap writes and reads capture files: pcap with micro- or nanosecond
// timestamps (draft-ietf-opsawg-pcap) and pcapng (draft-ietf-opsawg-pcapng).
// Writing is appending to byte slices, so that packets go from a ring to a
// file with one copy and whole records reach the file together. Reading has
// limits and takes files from anywhere.
package pcap

import (
	"encoding/binary"
	"path/filepath"
	"strings"
	"time"
)

// LinkEthernet is the link type of Ethernet frames in both formats.
const LinkEthernet = 1

// Interface describes where packets come from.
type Interface struct {
	Name     string // of the network interface; pcapng only
	About    string // more about it, for people; pcapng only
	Filter   string // capture filter; pcapng only
	Snaplen  int    // bytes kept of a packet; 0 means no limit
	LinkType int
	Stats    *Statistics // reader: once the file has told; nil before
}

// Statistics are what an interface counted. Negative counts are unknown.
type Statistics struct {
	Start, End time.Time
	Received   int64 // packets that passed the filter
	Dropped    int64 // of those, lost for want of room
	Comment    string
}

// Packet is one captured packet.
type Packet struct {
	Time      time.Time
	Interface int    // index among the interfaces of the file
	Length    int    // bytes on the wire
	Data      []byte // what was kept of them
}

// Encoder appends the parts of a capture file to dst.
type Encoder interface {
	// Header starts the file. The snaplen of pcap, which has it but once, is that given.
	Header(dst []byte, snaplen int) []byte
	// AddInterface declares the next interface; the first is number 0. Pcap has
	// no such thing and appends nothing.
	AddInterface(dst []byte, i Interface) []byte
	// Packet appends a record. The data is head followed by tail.
	Packet(dst []byte, iface int, sec, nsec uint32, length int, head, tail []byte) []byte
	// Statistics appends what an interface counted; nothing in pcap.
	Statistics(dst []byte, iface int, s Statistics) []byte
	// Whole returns how many of the first n bytes of b, records of this
	// encoder, are complete records.
	Whole(b []byte, n int) int
	// Count returns how many packets complete records hold, and their bytes.
	Count(b []byte) (packets, bytes uint64)
}

// ForFile chooses the format by the file's name: pcapng for .pcapng and .ntar,
// else pcap. The application is named in files that can.
func ForFile(path, application string) Encoder {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".pcapng", ".ntar":
		return NG{Application: application}
	}
	return Classic{}
}

var order = binary.LittleEndian // of what we write; readers take both

// Classic is the pcap format.
type Classic struct {
	Nanoseconds bool // timestamps in nanoseconds rather than microseconds
}

// Magic numbers of pcap, in the byte order of the file.
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

// Header implements Encoder.
func (c Classic) Header(dst []byte, snaplen int) []byte {
	magic := uint32(magicMicro)
	if c.Nanoseconds {
		magic = magicNano
	}
	dst = order.AppendUint32(dst, magic)
	dst = order.AppendUint16(dst, 2)
	dst = order.AppendUint16(dst, 4)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0) // time zone and accuracy: unused
	dst = order.AppendUint32(dst, uint32(snaplen))
	return order.AppendUint32(dst, LinkEthernet)
}

// AddInterface implements Encoder.
func (Classic) AddInterface(dst []byte, _ Interface) []byte { return dst }

// Packet implements Encoder.
func (c Classic) Packet(dst []byte, _ int, sec, nsec uint32, length int, head, tail []byte) []byte {
	if !c.Nanoseconds {
		nsec /= 1000
	}
	dst = order.AppendUint32(dst, sec)
	dst = order.AppendUint32(dst, nsec)
	dst = order.AppendUint32(dst, uint32(len(head)+len(tail)))
	dst = order.AppendUint32(dst, uint32(length))
	return append(append(dst, head...), tail...)
}

// Statistics implements Encoder.
func (Classic) Statistics(dst []byte, _ int, _ Statistics) []byte { return dst }

// Whole implements Encoder.
func (Classic) Whole(b []byte, n int) int {
	done := 0
	for done+16 <= n {
		size := 16 + int(order.Uint32(b[done+8:]))
		if done+size > n {
			break
		}
		done += size
	}
	return done
}

// Count implements Encoder.
func (Classic) Count(b []byte) (packets, bytes uint64) {
	for len(b) >= 16 {
		kept := order.Uint32(b[8:])
		packets, bytes = packets+1, bytes+uint64(kept)
		b = b[16+kept:]
	}
	return packets, bytes
}
