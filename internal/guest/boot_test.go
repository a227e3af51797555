package guest_test

import (
	"bytes"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/guest"
	"minimega/internal/guest/guesttest"
)

// TestPair boots two guests on one cable, one of them also on a cable with a
// DHCP server, and uses all there is: both kinds of network card, static and
// DHCP addresses, ping, HTTP, hot-plug, screen, keyboard, and both ways down.
func TestPair(t *testing.T) {
	dhcp := startDHCP(t, net.IPv4(10, 9, 0, 77).To4(), 8*time.Second)
	cable := filepath.Join(t.TempDir(), "cable")
	start := time.Now()
	a := guesttest.Start(t, guesttest.Kernel(t), "hostname=alpha ip=10.0.0.1/24 ip=eth0:fd00::1/64",
		"-netdev", "stream,id=n0,server=on,addr.type=unix,addr.path="+cable, "-device", "e1000,netdev=n0,mac=02:00:00:00:0a:01")
	// The later card lies lower on the bus, and so is eth0.
	b := guesttest.Start(t, guesttest.FastKernel(t), "hostname=beta ip=eth0:10.0.0.2/24 ip=eth1:dhcp",
		"-netdev", dhcp.netdev("n1"), "-device", "e1000,netdev=n1,mac=02:00:00:00:0b:02,addr=9",
		"-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path="+cable, "-device", "virtio-net-pci,netdev=n0,mac=02:00:00:00:0b:01,addr=5")
	a.Expect("alpha# ")
	t.Logf("console of the first of two guests after %.1f s", time.Since(start).Seconds())
	b.Expect("beta# ")

	t.Run("static", func(t *testing.T) { testStatic(t, a, b) })
	t.Run("dhcp", func(t *testing.T) { testDHCP(t, b, dhcp) })
	t.Run("traffic", func(t *testing.T) { testTraffic(t, a) })
	t.Run("shell", func(t *testing.T) { testShell(t, a) })
	t.Run("hotplug", func(t *testing.T) { testHotplug(t, a) })
	t.Run("screen", func(t *testing.T) { testScreen(t, a) })
	t.Run("poweroff", func(t *testing.T) {
		a.Send("poweroff")
		if err := a.Wait(); err != nil {
			t.Errorf("QEMU ended with %v", err)
		}
	})
	t.Run("power button", func(t *testing.T) {
		b.Until("ls /dev/input", "event")
		b.QMP("system_powerdown", nil)
		if err := b.Wait(); err != nil {
			t.Errorf("QEMU ended with %v", err)
		}
	})
}

func testStatic(t *testing.T, a, b *guesttest.VM) {
	a.Until("ip", "eth0   up   02:00:00:00:0a:01 10.0.0.1/24")
	out := b.Until("ip", "10.0.0.2/24")
	if !strings.Contains(out, "eth0   up   02:00:00:00:0b:01 10.0.0.2/24") {
		t.Errorf("eth0 is not the card that lies lowest on the bus:\n%s", out)
	}
}

func testDHCP(t *testing.T, b *guesttest.VM, dhcp *dhcpd) {
	b.Until("ip", "eth1   up   02:00:00:00:0b:02 10.9.0.77/24")
	if out := b.Run("cat /etc/resolv.conf"); !strings.Contains(out, "nameserver 10.9.0.1\n") {
		t.Errorf("resolv.conf is %q", out)
	}
	deadline := time.Now().Add(guesttest.Patience)
	requests, arps, names := dhcp.seen()
	for ; requests < 2 && time.Now().Before(deadline); requests, arps, names = dhcp.seen() {
		b.Run("sleep 0.5")
	}
	if requests < 2 || arps < 1 || names[0] != "beta" {
		t.Errorf("the server saw %d requests (no renewal?), %d announcements, names %q", requests, arps, names)
	}
}

func testTraffic(t *testing.T, a *guesttest.VM) {
	a.Until("ping -c 2 10.0.0.2", "2 sent, 2 received") // a busy machine may answer one too late
	if out := a.Run("get http://10.0.0.2/"); !strings.Contains(out, "hostname: beta") || !strings.Contains(out, "10.9.0.77/24") {
		t.Errorf("get: %s", out)
	}
	if out := a.Run("wget 10.0.0.2/bytes?n=200000 /tmp/file"); !strings.HasPrefix(out, "200000 bytes in ") {
		t.Errorf("wget: %s", out)
	}
	if out := a.Run("ls -l /tmp"); !strings.Contains(out, " 200000 ") {
		t.Errorf("ls: %s", out)
	}
	if out := a.Run("ping -c 1 10.0.0.200"); !strings.Contains(out, "1 sent, 0 received") {
		t.Errorf("ping of nobody: %s", out)
	}
	if out := a.Run("get 10.0.0.2/bytes?n=x"); !strings.Contains(out, "400 Bad Request") {
		t.Errorf("get of nonsense: %s", out)
	}
}

func testShell(t *testing.T, a *guesttest.VM) {
	for _, c := range []struct{ line, want string }{
		{"echo 'a  b' > /tmp/x; echo c >> /tmp/x; cat /tmp/x", "a  b\nc\n"},
		{"hostname", "alpha\n"},
		{"ps", "/init\n"},
		{"uptime", "MiB free"},
		{"dmesg", "Linux version"},
		{"help ping", "ICMP"},
		{"nosuch", "nosuch: no such command"},
		{"/bin/minimega", "init: this runs as the first process"},
		{"cat /nosuch", "no such file"},
		{"echo 'open", "quote"},
	} {
		if out := a.Run(c.line); !strings.Contains(out, c.want) {
			t.Errorf("%s: want %q in %q", c.line, c.want, out)
		}
	}
	a.Send("sleep 1000")
	a.Expect("sleep 1000\r\n")
	a.Send("\x03echo again") // ctrl-C first
	a.Expect("^C\r\n")
	a.Expect("\nagain\r\n")
	a.Prompt()
}

// testHotplug plugs in a kind of card that the guest has no driver loaded for.
func testHotplug(t *testing.T, a *guesttest.VM) {
	if out := a.Run("ls /sys/module"); strings.Contains(out, "virtio_net/") {
		t.Error("virtio_net is loaded without a device")
	}
	a.QMP("device_add", map[string]any{"driver": "virtio-net-pci", "id": "hot", "mac": "02:00:00:00:0a:99"})
	a.Until("ip", "eth1   up   02:00:00:00:0a:99")
	a.Run("ip eth1 10.5.5.5/24")
	a.Until("ip", "10.5.5.5/24")
}

func testScreen(t *testing.T, a *guesttest.VM) {
	before := a.Screen()
	if blank(before) {
		t.Fatal("the screen is blank")
	}
	a.Keys("e", "c", "h", "o", "spc", "shift-k", "shift-dot", "slash", "t", "m", "p", "slash", "k", "ret")
	a.Until("cat /tmp/k", "K\n")
	if bytes.Equal(before, a.Screen()) {
		t.Error("typing does not change the screen")
	}
	a.Keys("p", "a", "i", "n", "t", "ret")
	for end := time.Now().Add(guesttest.Patience); colours(a.Screen()) < 8; {
		if time.Now().After(end) {
			t.Fatal("paint does not paint")
		}
		a.Run("sleep 0.2")
	}
	a.Keys("ctrl-c")
}

// blank reports whether all pixels of a PPM picture are the same.
func blank(ppm []byte) bool { return colours(ppm) < 2 }

func colours(ppm []byte) int {
	seen := map[[3]byte]bool{}
	for p := ppm[min(len(ppm), 16):]; len(p) >= 3; p = p[3:] {
		seen[[3]byte(p)] = true
	}
	return len(seen)
}

// TestDisk boots a disk made by the command, with a login, and ends it with
// ctrl-alt-del.
func TestDisk(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "foo.qc2")
	var out, complaint bytes.Buffer
	status := guest.Command(t.Context(), []string{"disk", "-o", disk, "-init", guesttest.Init(t),
		"-append", "hostname=fromdisk ip=none login=ann:secret"}, &out, &complaint)
	if status != 0 || complaint.Len() > 0 {
		t.Fatalf("status %d: %s%s", status, out.String(), complaint.String())
	}
	if check, err := exec.Command("qemu-img", "check", disk).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img check: %v: %s", err, check)
	}
	start := time.Now()
	vm := guesttest.StartQEMU(t, "-drive", "file="+disk+",if=ide,format=qcow2")
	vm.Expect("fromdisk login: ")
	t.Logf("login after %.1f s", time.Since(start).Seconds())
	vm.Send("ann")
	vm.Expect("Password: ")
	vm.Send("wrong")
	vm.Expect("Login incorrect")
	vm.Expect("fromdisk login: ")
	vm.Send("ann")
	vm.Expect("Password: ")
	vm.Send("secret")
	vm.Expect("fromdisk# ")
	if vm.Output(); strings.Contains(vm.Output(), "secret") {
		t.Error("the password is shown")
	}
	vm.Until("ls /dev", "sda1\n") // its own disk, by a driver loaded late
	vm.Send("exit")
	vm.Expect("fromdisk login: ")
	vm.Keys("ctrl-alt-delete")
	if err := vm.Wait(); err != nil {
		t.Errorf("QEMU ended with %v", err)
	}
}
