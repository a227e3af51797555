package pcap

import (
	"runtime"
	"time"
)

// NG is the pcapng format, with timestamps in nanoseconds.
type NG struct {
	Application string // named in the section header
}

// Block types, options and the byte-order magic of pcapng.
const (
	blockSection    = 0x0a0d0d0a
	blockInterface  = 1
	blockSimple     = 3
	blockStatistics = 5
	blockEnhanced   = 6
	ngOrder         = 0x1a2b3c4d

	optEnd, optComment                             = 0, 1
	optOS, optApplication                          = 3, 4
	optName, optAbout, optTsresol, optFilter       = 2, 3, 9, 11
	optTsoffset                                    = 14
	optStart, optStop, optReceived                 = 2, 3, 4
	optDropped                                     = 5
	enhancedFixed, blockFrame                      = 20, 12
	nanoResolution                                 = 9
	libpcapFilter, maxOption                       = 0, 65535
	unknownLength                            int64 = -1
)

// begin appends a block's type and room for its length; end fills it in.
func begin(dst []byte, kind uint32) ([]byte, int) {
	at := len(dst)
	dst = order.AppendUint32(dst, kind)
	return append(dst, 0, 0, 0, 0), at
}

func end(dst []byte, at int) []byte {
	size := uint32(len(dst) - at + 4)
	order.PutUint32(dst[at+4:], size)
	return order.AppendUint32(dst, size)
}

func pad(dst []byte, n int) []byte {
	for ; n%4 != 0; n++ {
		dst = append(dst, 0)
	}
	return dst
}

func option(dst []byte, code uint16, value []byte) []byte {
	value = value[:min(len(value), maxOption)]
	dst = order.AppendUint16(dst, code)
	dst = order.AppendUint16(dst, uint16(len(value)))
	return pad(append(dst, value...), len(value))
}

func textOption(dst []byte, code uint16, s string) []byte {
	if s == "" {
		return dst
	}
	return option(dst, code, []byte(s))
}

func endOptions(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// Header implements Encoder: a section header of unknown length.
func (n NG) Header(dst []byte, _ int) []byte {
	dst, at := begin(dst, blockSection)
	dst = order.AppendUint32(dst, ngOrder)
	dst = order.AppendUint16(dst, 1)
	dst = order.AppendUint16(dst, 0)
	length := unknownLength
	dst = order.AppendUint64(dst, uint64(length))
	dst = textOption(dst, optOS, runtime.GOOS)
	dst = textOption(dst, optApplication, n.Application)
	return end(endOptions(dst), at)
}

// AddInterface implements Encoder.
func (NG) AddInterface(dst []byte, i Interface) []byte {
	dst, at := begin(dst, blockInterface)
	dst = order.AppendUint16(dst, LinkEthernet)
	dst = append(dst, 0, 0)
	dst = order.AppendUint32(dst, uint32(i.Snaplen))
	dst = textOption(dst, optName, i.Name)
	dst = textOption(dst, optAbout, i.About)
	dst = option(dst, optTsresol, []byte{nanoResolution})
	if i.Filter != "" {
		dst = option(dst, optFilter, append([]byte{libpcapFilter}, i.Filter...))
	}
	return end(endOptions(dst), at)
}

// Packet implements Encoder.
func (NG) Packet(dst []byte, iface int, sec, nsec uint32, length int, head, tail []byte) []byte {
	dst, at := begin(dst, blockEnhanced)
	kept := len(head) + len(tail)
	dst = order.AppendUint32(dst, uint32(iface))
	dst = appendTime(dst, uint64(sec)*1e9+uint64(nsec))
	dst = order.AppendUint32(dst, uint32(kept))
	dst = order.AppendUint32(dst, uint32(length))
	dst = append(append(dst, head...), tail...)
	return end(pad(dst, kept), at)
}

// appendTime appends a time as pcapng has it: the high half first.
func appendTime(dst []byte, ns uint64) []byte {
	dst = order.AppendUint32(dst, uint32(ns>>32))
	return order.AppendUint32(dst, uint32(ns))
}

func timeOption(dst []byte, code uint16, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return option(dst, code, appendTime(nil, uint64(t.UnixNano())))
}

func countOption(dst []byte, code uint16, n int64) []byte {
	if n < 0 {
		return dst
	}
	return option(dst, code, order.AppendUint64(nil, uint64(n)))
}

// Statistics implements Encoder.
func (NG) Statistics(dst []byte, iface int, s Statistics) []byte {
	dst, at := begin(dst, blockStatistics)
	dst = order.AppendUint32(dst, uint32(iface))
	dst = appendTime(dst, uint64(s.End.UnixNano()))
	dst = textOption(dst, optComment, s.Comment)
	dst = timeOption(dst, optStart, s.Start)
	dst = timeOption(dst, optStop, s.End)
	dst = countOption(dst, optReceived, s.Received)
	dst = countOption(dst, optDropped, s.Dropped)
	return end(endOptions(dst), at)
}

// Whole implements Encoder.
func (NG) Whole(b []byte, n int) int {
	done := 0
	for done+8 <= n {
		size := int(order.Uint32(b[done+4:]))
		if done+size > n {
			break
		}
		done += size
	}
	return done
}

// Count implements Encoder.
func (NG) Count(b []byte) (packets, bytes uint64) {
	for len(b) >= blockFrame {
		if order.Uint32(b) == blockEnhanced {
			packets, bytes = packets+1, bytes+uint64(order.Uint32(b[20:]))
		}
		b = b[order.Uint32(b[4:]):]
	}
	return packets, bytes
}
