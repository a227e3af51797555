package tests

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"minimega/internal/host/lab"
)

// small is where the last host of TestTransfer has its files: a file system of
// a few MiB, which only its processes see.
func small(h *lab.Host) string { return filepath.Join(h.Dir, "small") }

const (
	transferHosts = 10
	transferRate  = 32 << 20 // bytes a second that the first host sends, and takes
)

// Files on their way between ten hosts, of which the first is slow, and the
// last has a small disk.
func TestTransfer(t *testing.T) {
	g := newGroupOf(t, transferHosts, func(h *lab.Host) []string {
		switch h.Name {
		case "n1":
			return []string{"-rate", "32M"}
		case fmt.Sprint("n", transferHosts):
			must(t, os.Mkdir(small(h), 0o755))
			if out, err := h.Command(t.Context(), "mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", small(h)).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			return []string{"-filepath", small(h)}
		}
		return nil
	})
	for _, sub := range []struct {
		name string
		test func(*group)
	}{{"rate", transferAtRate}, {"change", transferOfChanging}, {"full", transferToFull}, {"launch", transferForLaunch}} {
		t.Run(sub.name, func(t *testing.T) {
			inner := *g
			inner.t = t
			sub.test(&inner)
		})
	}
	g.do(0, "clear all")
}

// noise is content that cannot be guessed or left out.
func noise(seed byte, size int) []byte {
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(content)
	return content
}

// has checks what a host has under a name.
func (g *group) has(n int, name string, content []byte) {
	g.t.Helper()
	if got, err := os.ReadFile(g.file(n, name)); err != nil || !bytes.Equal(got, content) {
		g.t.Errorf("n%d has %d bytes of %s, %v", n+1, len(got), name, err)
	}
}

// -rate bounds what is sent and what is taken.
func transferAtRate(g *group) {
	content := noise(2, 24<<20)
	least := time.Duration(float64(len(content)) / transferRate / 2 * float64(time.Second))
	for from, to := range map[int]int{0: 1, 2: 0} {
		name := fmt.Sprintf("rate%d", from)
		g.put(from, name, content)
		start := time.Now()
		g.do(to, "vm config disk file:"+name)
		took := time.Since(start)
		g.has(to, name, content)
		g.t.Logf("%d bytes from n%d to n%d in %v", len(content), from+1, to+1, took)
		if took < least {
			g.t.Errorf("n%d to n%d: %v is too fast for %d bytes at %d a second", from+1, to+1, took, len(content), transferRate)
		}
	}
}

// last is the number of the host with the small disk.
const last = transferHosts - 1

// onSmall runs a command on the host with the small disk and returns what it prints.
func (g *group) onSmall(name string, args ...string) string {
	g.t.Helper()
	cmd := g.daemons[last].Host.Command(g.t.Context(), name, args...)
	out, err := cmd.CombinedOutput()
	if err != nil && name != "dd" {
		g.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// fill takes what is free on the small disk, but for what a name needs.
func (g *group) fill() {
	g.t.Helper()
	g.onSmall("dd", "if=/dev/zero", "of="+filepath.Join(small(g.daemons[last].Host), "fill"), "bs=64k")
	g.onSmall("truncate", "-s", "-64K", filepath.Join(small(g.daemons[last].Host), "fill"))
}

func (g *group) free() {
	g.t.Helper()
	g.onSmall("rm", filepath.Join(small(g.daemons[last].Host), "fill"))
}

// holdsOnly checks what is on the small disk, hidden files included.
func (g *group) holdsOnly(want string) {
	g.t.Helper()
	if got := strings.Join(strings.Fields(g.onSmall("ls", "-A", small(g.daemons[last].Host))), " "); got != want {
		g.t.Errorf("the small disk holds %q, want %q", got, want)
	}
}

// seeComing waits until a host has some of a file of 24 MiB that a command
// brings, and not all.
func (g *group) seeComing(n int, answer chan string) {
	g.t.Helper()
	middle := regexp.MustCompile(` ([1-9]|[1-3]\d|4[0-7])/48 `)
	for end := time.Now().Add(commandTime); !middle.MatchString(g.run(n, "file status")); time.Sleep(time.Millisecond) {
		if time.Now().After(end) || len(answer) > 0 {
			g.t.Fatal("the file is never seen coming")
		}
	}
}

// A file that is written to while it is on its way does not come, and is not
// left by half; what it is then comes.
func transferOfChanging(g *group) {
	content := noise(6, 24<<20)
	g.put(0, "log", content)
	answer := make(chan string, 1)
	go func() { answer <- g.run(1, "vm config disk file:log") }()
	g.seeComing(1, answer)
	content = append(content, "more"...)
	g.put(0, "log", content)
	if got := <-answer; got != "n2: !get log: the file changed while it was copied: on n1" {
		g.t.Errorf("got %q", got)
	}
	if left, _ := filepath.Glob(g.file(1, ".*")); left != nil {
		g.t.Errorf("left: %s", left)
	}
	g.do(1, "vm config disk file:log")
	g.has(1, "log", content)
}

// One of nine hosts runs out of room in the middle: it is named, and the other
// eight have the file.
func transferToFull(g *group) {
	content := noise(3, 24<<20)
	g.put(0, "big", content)
	answer := make(chan string, 1)
	go func() { answer <- g.run(0, "mesh send all vm config disk file:big") }()
	g.seeComing(last, answer)
	g.fill()
	got := <-answer
	if !strings.HasPrefix(got, "n10: !get big: disk full") || strings.Contains(got, "\n") {
		g.t.Errorf("got\n%s", got)
	}
	for n := range last {
		g.has(n, "big", content)
	}
	g.holdsOnly("fill")
	g.want(last, "", "file status")
	g.free()
	g.do(last, "vm config disk file:big")
	g.holdsOnly("big")
	g.do(last, "file delete big")
}

// multiboot is a kernel that does nothing, of some size: the header of the
// Multiboot Specification with addresses, and code that halts.
func multiboot(size int) []byte {
	const magic, addresses, at = 0x1badb002, 1 << 16, 0x100000
	k := noise(4, size)
	for i, v := range []uint32{magic, addresses, -(magic + addresses) & 0xffffffff, at, at, 0, 0, at + 32} {
		binary.LittleEndian.PutUint32(k[4*i:], v)
	}
	copy(k[32:], []byte{0xfa, 0xf4, 0xeb, 0xfd}) // cli; hlt; jmp -3
	return k
}

// What a launch needs and its hosts lack comes first, and can be seen coming.
func transferForLaunch(g *group) {
	if out, err := exec.Command("qemu-img", "create", "-q", "-f", "qcow2", g.file(0, "disk.qcow2"), "16M").CombinedOutput(); err != nil {
		g.t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	kernel := multiboot(12 << 20)
	g.put(0, "kernel", kernel)
	g.do(0, "namespace lab", "vm config memory 64", "vm config disks disk.qcow2", "vm config kernel "+g.file(0, "kernel"))
	for _, n := range []int{1, 2} {
		g.do(0, "ns queueing true", fmt.Sprintf("vm config schedule n%d", n+1), fmt.Sprintf("vm launch kvm k%d", n+1))
	}
	answer := make(chan string, 1)
	go func() { answer <- g.run(0, "ns queueing false") + g.run(0, "vm launch") }()
	for _, n := range []int{1, 2} {
		g.await(n, "kernel ", "file status")
	}
	if got := <-answer; got != "" {
		g.t.Errorf("vm launch: %s", got)
	}
	for _, n := range []int{1, 2} {
		g.has(n, "kernel", kernel)
		g.want(0, fmt.Sprintf("n%d: k%d %s", n+1, n+1, g.file(n, "disk.qcow2")), ".columns name,disks .filter name=k%d vm info", n+1)
	}
	g.do(0, "vm start all")
	g.want(0, "n2: k2 RUNNING\nn3: k3 RUNNING", ".columns name,state .filter name~k vm info")

	// What nobody has, and what there is no room for.
	refused := func(n int, why, line string) {
		g.t.Helper()
		if got := g.run(0, "%s", line); !strings.HasPrefix(got, fmt.Sprintf("n1: !host n%d: ", n+1)) || !strings.Contains(got, why) || strings.Contains(got, "\n") {
			g.t.Errorf("%s: %s", line, got)
		}
		g.want(0, "n2: k2\nn3: k3", ".columns name vm info")
	}
	g.do(0, "vm config schedule n4", "vm config kernel "+g.file(0, "none"))
	refused(3, g.file(3, "none")+" does not exist", "vm launch kvm none")
	g.fill()
	g.do(0, "vm config schedule n10", "vm config kernel "+g.file(0, "kernel"))
	refused(last, "get kernel: disk full", "vm launch kvm full")
	g.holdsOnly("fill")
	g.free()
	g.do(0, "vm launch kvm full")
	g.holdsOnly("disk.qcow2 kernel")
}
