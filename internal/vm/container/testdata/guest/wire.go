package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	actions["inject"] = inject
	actions["watch"] = watch
	actions["spoof"] = spoof
}

// wire opens veth0 for raw frames, in both directions.
func wire() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(everything))
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil { // for many at once
		return -1, err
	}
	req, err := unix.NewIfreq("veth0")
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_PROMISC)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return -1, err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, req); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: int(req.Uint32())})
}

const everything = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network byte order

// inject sends the frames of /vol/frames, each a line in hex. Nobody may answer:
// not by ARP (RFC 826), and not by neighbour discovery (RFC 4861).
func inject([]string) error {
	list, err := os.ReadFile("/vol/frames")
	if err != nil {
		return err
	}
	fd, err := wire()
	if err != nil {
		return err
	}
	for _, line := range strings.Fields(string(list)) {
		frame, err := hex.DecodeString(line)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, frame); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000}); err != nil {
		return err
	}
	var failed []error
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) { // a signal of the Go runtime
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return err
		}
		if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype != unix.PACKET_OUTGOING && answers(buf[:n]) {
			failed = append(failed, fmt.Errorf("BROKEN OUT: the host answers %x", buf[:n]))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	fmt.Println("sent")
	return forever(nil)
}

// answers tells answers of ARP and of neighbour discovery.
func answers(frame []byte) bool {
	if len(frame) < 42 {
		return false
	}
	const advertisement = 136
	arp, ip6 := string(frame[12:14]) == "\x08\x06", string(frame[12:14]) == "\x86\xdd"
	return arp && frame[21] == 2 || ip6 && len(frame) > 54 && frame[20] == unix.IPPROTO_ICMPV6 && frame[54] == advertisement
}

// watch writes down, in /vol/seen, the marks of frames that come in.
func watch([]string) error {
	fd, err := wire()
	if err != nil {
		return err
	}
	seen, err := os.Create("/vol/seen")
	if err != nil {
		return err
	}
	fmt.Println("watching")
	mark := regexp.MustCompile(`mark-[a-z0-9]+;`)
	buf := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, buf)
		if err != nil {
			return err
		}
		if m := mark.Find(buf[:n]); m != nil {
			if _, err := seen.Write(append(m, '\n')); err != nil {
				return err
			}
		}
	}
}

// spoof sends as many frames as it is told, each in another's name.
func spoof(args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	fd, err := wire()
	if err != nil {
		return err
	}
	frame := make([]byte, 60)
	for i := range 6 {
		frame[i] = 0xff
	}
	frame[12], frame[13] = 0x88, 0xb5 // for experiments, IEEE 802
	for range count {
		for i := 6; i < 12; i++ {
			frame[i] = byte(rand.Uint32())
		}
		frame[6] = frame[6]&^1 | 2
		_, err := unix.Write(fd, frame)
		for errors.Is(err, unix.ENOBUFS) {
			time.Sleep(time.Millisecond)
			_, err = unix.Write(fd, frame)
		}
		if err != nil {
			return err
		}
	}
	fmt.Println("sent")
	return forever(nil)
}
