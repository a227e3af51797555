package lab

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/hosttest"
)

func TestHosts(t *testing.T) {
	start := time.Now()
	l := Make(t, Options{Hosts: 10, Prefix: "node", MTU: 1400})
	t.Logf("10 hosts in %v", time.Since(start))
	for i, h := range l.Hosts {
		got := output(t, h, "sh", "-c", "hostname; cat /sys/class/net/eth0/mtu; ls /sys/class/net; pwd; ls -d /sys/fs/cgroup/*; grep -c node /etc/hosts")
		want := h.Name + "\n1400\neth0\nlo\n"
		if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "\n10") {
			t.Errorf("host %d: %q", i, got)
		}
		if strings.Contains(got, "/sys/fs/cgroup/*") {
			t.Error("control groups are hidden")
		}
	}
	if name, _ := os.Hostname(); strings.HasPrefix(name, "node") {
		t.Errorf("the machine is now %q", name)
	}
	if got := output(t, l.Hosts[0], "ip", "-o", "-4", "addr", "show", "eth0"); !strings.Contains(got, l.Hosts[0].IP.String()+"/24 brd 10.77.0.255") {
		t.Errorf("address: %q", got)
	}
}

func output(t *testing.T, h *Host, name string, args ...string) string {
	t.Helper()
	cmd := h.Command(t.Context(), name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %s %q: %v: %s", h.Name, name, args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Cut, split and lossy cables do to the hosts named, and only to them, what
// they say, and can be taken back.
func TestCables(t *testing.T) {
	l := Make(t, Options{Hosts: 4})
	a, b, c, d := l.Hosts[0], l.Hosts[1], l.Hosts[2], l.Hosts[3]
	reaches(t, a, d, true)
	must(t, a.Cut())
	reaches(t, a, b, false)
	reaches(t, b, a, false)
	reaches(t, b, c, true)
	must(t, a.Join())
	reaches(t, b, a, true)

	must(t, l.Split([]*Host{a, b}))
	reaches(t, a, b, true)
	reaches(t, c, d, true)
	reaches(t, a, c, false)
	must(t, l.Split([]*Host{a}, []*Host{b, c}))
	reaches(t, a, b, false)
	reaches(t, b, c, true)
	reaches(t, d, a, false)
	must(t, l.Split())
	reaches(t, a, c, true)
	reaches(t, d, b, true)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// listenUDP opens a socket in a host.
func listenUDP(t *testing.T, h *Host) (conn *net.UDPConn) {
	t.Helper()
	must(t, h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{})
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	return conn
}

// reaches sends from one host to another, again and again for a while.
func reaches(t *testing.T, from, to *Host, want bool) {
	t.Helper()
	tx, rx := listenUDP(t, from), listenUDP(t, to)
	got, rounds := false, 1500
	if !want {
		rounds = 15
	}
	for range rounds {
		_, _ = tx.WriteToUDP([]byte("hello"), &net.UDPAddr{IP: to.IP.AsSlice(), Port: rx.LocalAddr().(*net.UDPAddr).Port})
		must(t, rx.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
		if n, _, err := rx.ReadFromUDP(make([]byte, 100)); err == nil && n == 5 {
			got = true
			break
		}
	}
	if got != want {
		t.Errorf("%s reaches %s: %v, want %v", from.Name, to.Name, got, want)
	}
}

func TestBroadcast(t *testing.T) {
	l := Make(t, Options{Hosts: 3})
	tx := listenUDP(t, l.Hosts[0])
	for _, dst := range []net.IP{net.IPv4bcast, net.IPv4(10, 77, 0, 255)} {
		for _, h := range l.Hosts[1:] {
			rx := listenUDP(t, h)
			port := rx.LocalAddr().(*net.UDPAddr).Port
			got := false
			for range 1500 {
				if _, err := tx.WriteToUDP([]byte("all"), &net.UDPAddr{IP: dst, Port: port}); err != nil {
					t.Fatal(err)
				}
				must(t, rx.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				_, from, err := rx.ReadFromUDP(make([]byte, 10))
				if got = err == nil && from.IP.Equal(l.Hosts[0].IP.AsSlice()); got {
					break
				}
			}
			if !got {
				t.Errorf("%s does not hear a broadcast to %v", h.Name, dst)
			}
		}
	}
}

func TestLoss(t *testing.T) {
	l := Make(t, Options{Hosts: 2})
	a, b := l.Hosts[0], l.Hosts[1]
	reaches(t, a, b, true)
	for _, tt := range []struct{ share, low, high float64 }{{0.3, 0.55, 0.8}, {1, 0, 0}, {0, 0.9, 1}} {
		must(t, b.Loss(tt.share))
		if got := arriving(t, a, b); got < tt.low || got > tt.high {
			t.Errorf("with a loss of %v a share of %v arrives", tt.share, got)
		}
	}
	if b.Loss(1.5) == nil || b.Loss(-1) == nil {
		t.Error("no error")
	}
}

// arriving is the share of 1000 datagrams that arrive.
func arriving(t *testing.T, from, to *Host) float64 {
	t.Helper()
	// The loss is for everything, ARP too: the address must be known.
	mac := output(t, to, "cat", "/sys/class/net/eth0/address")
	output(t, from, "ip", "neigh", "replace", to.IP.String(), "lladdr", mac, "dev", "eth0")
	tx, rx := listenUDP(t, from), listenUDP(t, to)
	const n = 1000
	got := 0
	buf := make([]byte, 10)
	for range n {
		_, err := tx.WriteToUDP([]byte("x"), &net.UDPAddr{IP: to.IP.AsSlice(), Port: rx.LocalAddr().(*net.UDPAddr).Port})
		must(t, err)
		must(t, rx.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, _, err := rx.ReadFromUDP(buf); err == nil {
			got++
		}
	}
	for { // what came late
		must(t, rx.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		if _, _, err := rx.ReadFromUDP(buf); err != nil {
			return float64(got) / n
		}
		got++
	}
}

// A host has directories of its own, with what is to stay in them.
func TestOwn(t *testing.T) {
	top, keep := t.TempDir(), ""
	keep = filepath.Join(top, "kept", "dir")
	must(t, os.MkdirAll(keep, 0o755))
	must(t, os.WriteFile(filepath.Join(top, "file"), []byte("the machine's"), 0o644))
	must(t, os.WriteFile(filepath.Join(top, "single"), []byte("kept"), 0o644))
	must(t, os.WriteFile(filepath.Join(keep, "inside"), nil, 0o644))
	l := Make(t, Options{Hosts: 2, Own: []string{top}, Keep: []string{keep, filepath.Join(top, "single")}})
	for _, h := range l.Hosts {
		if got := output(t, h, "ls", top, keep); got != top+":\nkept\nsingle\n\n"+keep+":\ninside" {
			t.Errorf("%s: %q", h.Name, got)
		}
		h.Env = []string{"WHOSE=" + h.Name}
		output(t, h, "sh", "-c", "echo $WHOSE >"+top+"/name; echo "+h.Name+" >>"+top+"/single")
	}
	for _, h := range l.Hosts {
		if got := output(t, h, "cat", top+"/name"); got != h.Name {
			t.Errorf("%s: %q", h.Name, got)
		}
		if text, _ := os.ReadFile(h.Path(top + "/name")); string(text) != h.Name+"\n" {
			t.Errorf("%s, seen from the machine: %q", h.Name, text)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(top, "single")); string(text) != "keptn1\nn2\n" {
		t.Errorf("what is kept: %q", text)
	}
	if _, err := os.Stat(filepath.Join(top, "name")); err == nil {
		t.Error("a host's file is the machine's")
	}
	cmd := l.Hosts[0].Command(t.Context(), "pwd")
	cmd.Dir = keep
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != keep+"\n" {
		t.Errorf("directory: %q, %v", out, err)
	}
}

// Nothing is left of a lab, also with programs in it that do not want to end,
// and of one that could not be made.
func TestNothingLeft(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	machine := hosttest.Machine{Marks: []string{tmp}, Temps: []string{tmp}}
	before := machine.Take()
	l, err := New(t.Context(), Options{Hosts: 3, Own: []string{"/var/tmp"}})
	must(t, err)
	stubborn := l.Hosts[1].Command(context.Background(), "sh", "-c", "trap '' TERM HUP; echo; exec sleep 1000")
	stubborn.Dir = l.Dir
	must(t, stubborn.Start())
	mine := hosttest.Machine{Marks: []string{l.ID, tmp}}
	for end := time.Now().Add(time.Minute); len(mine.Take()) < 5; time.Sleep(10 * time.Millisecond) { // three hosts, the switch, the program
		if time.Now().After(end) {
			t.Fatalf("marked: %v", mine.Take())
		}
	}
	must(t, l.Close())
	must(t, l.Close())
	var exit *exec.ExitError
	if err := stubborn.Wait(); !errors.As(err, &exit) {
		t.Errorf("the program in it: %v", err)
	}
	if left := mine.Left(hosttest.Snapshot{}); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if left := machine.Left(before); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := New(t.Context(), Options{Hosts: 2, Own: []string{tmp + "/not there"}}); err == nil || !strings.Contains(err.Error(), "not there") {
		t.Errorf("a directory that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ctx, Options{Hosts: 2}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, n := range []int{0, -1, MaxHosts + 1} {
		if _, err := New(t.Context(), Options{Hosts: n}); err == nil {
			t.Errorf("a lab of %d hosts", n)
		}
	}
	if left := machine.Left(before); len(left) > 0 {
		t.Errorf("left of labs that failed: %v", left)
	}
}

// A lab whose process is killed takes with it what runs in its hosts, also what
// is nobody's child any more, as machines are. The process is this test again.
func TestKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if os.Getenv("LAB_KILLED") != "" {
		l := Make(t, Options{Hosts: 2})
		output(t, l.Hosts[1], "sh", "-c", "setsid sh -c 'sleep 1000; :' orphan-"+l.ID+" >/dev/null 2>&1 & echo")
		os.Stdout.WriteString(l.Dir + "\n")
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	cmd.Env = append(os.Environ(), "LAB_KILLED=yes")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	dir, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	dir = strings.TrimSpace(dir)
	t.Cleanup(func() { os.RemoveAll(dir) })
	id := filepath.Base(dir)[:len("lab-12345678")]
	machine := hosttest.Machine{Marks: []string{id}}
	orphan := hosttest.Machine{Marks: []string{"orphan-" + id}}
	if len(orphan.Take()) != 1 {
		t.Errorf("no orphan, but %v", machine.Take())
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	if left := machine.Left(hosttest.Snapshot{}); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
