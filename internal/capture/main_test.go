package capture

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"minimega/internal/capture/pcap"
	"minimega/internal/host/hosttest"
)

const inside = "CAPTURE_TEST_INSIDE"

// TestMain runs the tests in network and mount namespaces of their own, which
// go with the process.
func TestMain(m *testing.M) {
	if text := os.Getenv(standIn); text != "" {
		if err := runStandIn(text); err != nil {
			panic(err)
		}
		return
	}
	if os.Getenv(inside) != "" || os.Geteuid() != 0 {
		_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		os.Exit(m.Run())
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		panic(err)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Getenv(inside) == "" {
		t.Skip("needs root for network namespaces and packet sockets")
	}
}

func newManager(t *testing.T) *Manager {
	t.Helper()
	needRoot(t)
	hosttest.Machine{Alone: true}.Check(t)
	m := New(slog.New(slog.NewTextHandler(&logWriter{t}, nil)))
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
		goleak.VerifyNone(t, before)
	})
	return m
}

type logWriter struct{ t *testing.T }

func (w *logWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

// veth makes a pair of interfaces and returns their names; what is sent on the
// second comes in on the first.
func veth(t *testing.T) (string, string) {
	t.Helper()
	needRoot(t)
	id := make([]byte, 4)
	_, _ = rand.Read(id)
	a, b := "ca"+hex.EncodeToString(id), "cb"+hex.EncodeToString(id)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = a
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: b}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(a) })
	for _, name := range []string{a, b} {
		up(t, name)
	}
	ready(t, a, b)
	return a, b
}

// ready waits until the kernel has taken note of the carrier: an interface loses
// what it is to send before.
func ready(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		eventually(t, "a carrier", func() bool {
			l, err := netlink.LinkByName(name)
			if err != nil {
				t.Fatal(name, err)
			}
			return l.Attrs().OperState == netlink.OperUp
		})
	}
}

func up(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(name, err)
	}
}

func remove(name string) {
	if l, err := netlink.LinkByName(name); err == nil {
		_ = netlink.LinkDel(l)
	}
}

// sender sends frames out of an interface.
func sender(t *testing.T, ifname string) func(frames ...[]byte) {
	t.Helper()
	index, err := linkIndex(ifname)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
		t.Fatal(err)
	}
	return func(frames ...[]byte) {
		t.Helper()
		for _, f := range frames {
			_, err := unix.Write(fd, f)
			for errors.Is(err, unix.ENOBUFS) {
				_, err = unix.Write(fd, f)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// udpFrame is a UDP packet from 10.0.0.1 to 10.0.0.2 with its number in the payload.
func udpFrame(dport, number, size int) []byte {
	f := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	f = binary.BigEndian.AppendUint16(f, 5000)
	f = binary.BigEndian.AppendUint16(f, uint16(dport))
	f = append(f, 0, 0, 0, 0)
	f = binary.BigEndian.AppendUint32(f, uint32(number))
	f = append(f, make([]byte, max(0, size-len(f)))...)
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	binary.BigEndian.PutUint16(f[38:], uint16(len(f)-34))
	return f
}

func tagFrame(f []byte, tpid, tci uint16) []byte {
	return append(appendTag(append([]byte(nil), f[:12]...), tpid, tci), f[12:]...)
}

// tcpdump prints the packets of a file that match a filter, one a line.
func tcpdump(t *testing.T, path string, args ...string) []string {
	t.Helper()
	out, err := exec.Command("tcpdump", append([]string{"-nn", "-t", "-e", "-r", path}, args...)...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("tcpdump -r %s: %s", path, exit.Stderr)
		}
		t.Fatal(err)
	}
	if len(bytes.TrimSpace(out)) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

type readPacket struct {
	pcap.Packet
	data []byte
}

// read returns all packets of a file.
func read(t *testing.T, path string) ([]readPacket, []pcap.Interface) {
	t.Helper()
	r, err := pcap.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var all []readPacket
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, r.Interfaces()
		}
		if err != nil {
			t.Fatalf("%s after %d packets: %v", path, len(all), err)
		}
		all = append(all, readPacket{p, bytes.Clone(p.Data)})
	}
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-end:
			t.Fatal("not within a minute: " + what)
		case <-tick.C:
		}
	}
}

func file(t *testing.T, name string) string { return filepath.Join(t.TempDir(), name) }

func stopAll(t *testing.T, m *Manager, want int) {
	t.Helper()
	n, err := m.StopAll(context.Background(), "ns")
	if err != nil || n != want {
		t.Fatalf("stopped %d captures, want %d: %v", n, want, err)
	}
}

func vmSpec(path string, o Options) Spec {
	return Spec{Namespace: "ns", VM: "foo", VMID: 7, Interface: 0, Path: path, Options: o}
}

func setDown(t *testing.T, name string) {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkSetDown(l)
	}
	if err != nil {
		t.Fatal(err)
	}
}
