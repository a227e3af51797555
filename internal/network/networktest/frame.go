package networktest

import "encoding/binary"

var (
	guestMAC  = [6]byte{2, 0, 0, 0, 0, 1}
	guestAddr = [4]byte{10, 9, 0, 99}
	hostAddr  = [4]byte{10, 9, 0, 200}
)

const broadcast = "\xff\xff\xff\xff\xff\xff"

// groups are addresses of which a bridge may think that they mean the host:
// everybody, and those for protocols between neighbours (IEEE 802.1Q, table 8-1).
func groups() []string {
	list := []string{broadcast}
	for i := range 16 {
		list = append(list, "\x01\x80\xc2\x00\x00"+string(rune(i)))
	}
	return list
}

// arpForHost asks for the host's address (RFC 826).
func arpForHost(to string) []byte {
	f := append([]byte(to), guestMAC[:]...)
	f = append(f, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01"...)
	f = append(append(f, guestMAC[:]...), guestAddr[:]...)
	return append(append(f, 0, 0, 0, 0, 0, 0), hostAddr[:]...)
}

// packetToHost is an UDP packet to the host's address in a frame to a group of
// addresses, for which a guest needs no ARP.
func packetToHost(to string) []byte {
	f := append([]byte(to), guestMAC[:]...)
	f = append(f, 8, 0)
	ip := make([]byte, 20, 40)
	ip[0], ip[3], ip[8], ip[9] = 0x45, 40, 64, 17
	copy(ip[12:], guestAddr[:])
	copy(ip[16:], hostAddr[:])
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := []byte{0, probePort, 0, probePort, 0, 20, 0, 0}
	return append(append(append(f, ip...), udp...), "hello, host!"...)
}
