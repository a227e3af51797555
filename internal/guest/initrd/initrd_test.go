package initrd

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// entry is what the reader below finds in an archive.
type entry struct {
	mode uint32
	data []byte
	rdev [2]uint64
}

// readCPIO reads a newc archive the way its description says, independent of
// the writer.
func readCPIO(t *testing.T, archive []byte) (names []string, entries map[string]entry) {
	t.Helper()
	entries = map[string]entry{}
	align := func(n int) int { return (n + 3) &^ 3 }
	for at := 0; ; {
		h := archive[at : at+110]
		if string(h[:6]) != "070701" {
			t.Fatalf("bad magic %q at %d", h[:6], at)
		}
		field := func(i int) uint64 {
			v, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		size, nameSize := int(field(6)), int(field(11))
		name := string(archive[at+110 : at+110+nameSize-1])
		at = align(at + 110 + nameSize)
		if name == "TRAILER!!!" {
			return names, entries
		}
		names = append(names, name)
		entries[name] = entry{uint32(field(1)), archive[at : at+size], [2]uint64{field(9), field(10)}}
		at = align(at + size)
	}
}

// moduleTree makes modules of nothing but ELF with a .modinfo section.
func moduleTree(t *testing.T, modules map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for file, info := range modules {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fakeModule(info), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fakeModule is a 64-bit ELF file with the sections "", .modinfo and .shstrtab;
// info has blanks between its key=value strings.
func fakeModule(info string) []byte {
	text := strings.ReplaceAll(info, " ", "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	head := "7f454c4602010100" + "0000000000000000" + "0100" + "3e00" + "01000000" +
		strings.Repeat("00", 16) + le(64+len(text)+len(names), 8) + "00000000" + "4000" + "0000" + "0000" + "4000" + "0300" + "0200"
	section := func(name, kind, off, size int) string {
		return le(name, 4) + le(kind, 4) + strings.Repeat("00", 16) + le(off, 8) + le(size, 8) + le(0, 8) + le(1, 8) + le(0, 8)
	}
	b, err := hex.DecodeString(head)
	if err != nil {
		panic(err)
	}
	b = append(b, text+names...)
	table, err := hex.DecodeString(strings.Repeat("00", 64) + section(1, 1, 64, len(text)) + section(10, 3, 64+len(text), len(names)))
	if err != nil {
		panic(err)
	}
	return append(b, table...)
}

func le(v, n int) string {
	var b strings.Builder
	for range n {
		fmt.Fprintf(&b, "%02x", v&0xff)
		v >>= 8
	}
	return b.String()
}

func testTree(t *testing.T) string {
	return moduleTree(t, map[string]string{
		"kernel/drivers/net/virtio_net.ko":     "depends=net_failover alias=virtio:d00000001v* alias=rubbish",
		"kernel/drivers/net/net_failover.ko":   "depends=failover",
		"kernel/net/core/failover.ko":          "license=GPL",
		"kernel/drivers/net/ne2k-pci.ko":       "depends=8390 alias=pci:v00008029d*",
		"kernel/drivers/net/8390.ko":           "depends=",
		"kernel/drivers/ata/ata_piix.ko":       "depends=libata alias=pci:v00008086d00007010*",
		"kernel/drivers/ata/libata.ko":         "depends=failover",
		"kernel/net/8021q/8021q.ko":            "depends=garp alias=rtnl-link-vlan",
		"kernel/net/802/garp.ko":               "depends=",
		"kernel/drivers/ring_a.ko":             "depends=ring_b",
		"kernel/drivers/ring_b.ko":             "depends=ring_a",
		"kernel/drivers/net/ethernet/extra.ko": "depends=builtin_one alias=pci:*",
	})
}

func TestResolve(t *testing.T) {
	dir := testTree(t)
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/x/af_packet.ko\nkernel/x/builtin-one.ko\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T) {
		m, err := OpenModules(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Resolve("virtio-net")
		want := []string{"kernel/net/core/failover.ko", "kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko"}
		if err != nil || !slices.Equal(got.Files, want) || !slices.Equal(got.Devices, []string{"virtio:d00000001v*"}) || got.Missing {
			t.Errorf("virtio-net: %+v, %v", got, err)
		}
		if got, err := m.Resolve("ne2k_pci"); err != nil || len(got.Files) != 2 {
			t.Errorf("ne2k_pci: %+v, %v", got, err)
		}
		if got, err := m.Resolve("af_packet"); err != nil || got.Missing || got.Files != nil {
			t.Errorf("built in: %+v, %v", got, err)
		}
		if got, err := m.Resolve("nosuch"); err != nil || !got.Missing {
			t.Errorf("missing: %+v, %v", got, err)
		}
		if _, err := m.Resolve("ring_a"); err == nil {
			t.Error("a ring of modules is no error")
		}
	}
	t.Run("modinfo", check)
	dep := `kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
` + dir + `/kernel/drivers/net/ne2k-pci.ko: ../../kernel/drivers/net/8390.ko
kernel/drivers/net/8390.ko:
kernel/drivers/ring_a.ko: kernel/drivers/ring_b.ko
kernel/drivers/ring_b.ko: kernel/drivers/ring_a.ko
`
	if err := os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("modules.dep", check)
}

func TestCompressedModule(t *testing.T) {
	dir := testTree(t)
	plain := filepath.Join(dir, "kernel/drivers/net/8390.ko")
	data, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(data)
	z.Close()
	if err := os.WriteFile(plain+".gz", packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(plain); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := Write(&b, Options{Binary: staticBinary(t), ModulesDir: dir, Drivers: []string{"ne2k_pci"}}); err != nil {
		t.Fatal(err)
	}
	_, got := readCPIO(t, b.Bytes())
	if !bytes.Equal(got["lib/modules/8390.ko"].data, data) {
		t.Error("the module is not unpacked")
	}
}

// staticBinary is an ELF program without a loader: a module will do.
func staticBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prog")
	if err := os.WriteFile(path, fakeModule("x=y"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWrite(t *testing.T) {
	extra := t.TempDir()
	if err := os.MkdirAll(filepath.Join(extra, "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(extra, "sub/run"), []byte("#!x\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/run", filepath.Join(extra, "link")); err != nil {
		t.Fatal(err)
	}
	o := Options{Binary: staticBinary(t), ModulesDir: testTree(t),
		Drivers: []string{"virtio_net", "ata_piix", "nosuch"}, Modules: []string{"8021q", "ne2k-pci"},
		Files: map[string]string{"/opt/x": extra}}
	var b, again bytes.Buffer
	rep, err := Write(&b, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(&again, o); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same options make another archive (%v)", err)
	}
	if !slices.Equal(rep.Missing, []string{"nosuch"}) || len(rep.Modules) != 9 {
		t.Errorf("report: %+v", rep)
	}
	names, e := readCPIO(t, b.Bytes())
	checkOrder(t, names, e)
	for name, mode := range map[string]uint32{"init": 0o100755, "dev": 0o040755, "dev/console": 0o020600, "opt/x/sub": 0o040750,
		"opt/x/sub/run": 0o100755, "opt/x/link": 0o120777, "lib/modules/virtio_net.ko": 0o100644} {
		if e[name].mode != mode {
			t.Errorf("%s has mode %o", name, e[name].mode)
		}
	}
	if e["dev/console"].rdev != [2]uint64{5, 1} || string(e["opt/x/link"].data) != "sub/run" {
		t.Error("device or link is wrong")
	}
	want := `/lib/modules/failover.ko /lib/modules/net_failover.ko /lib/modules/virtio_net.ko virtio:d00000001v*
late /lib/modules/failover.ko /lib/modules/libata.ko /lib/modules/ata_piix.ko pci:v00008086d00007010*
/lib/modules/garp.ko /lib/modules/8021q.ko 
/lib/modules/8390.ko /lib/modules/ne2k_pci.ko 
`
	if got := string(e["etc/modules.load"].data); got != want {
		t.Errorf("load list:\n%s", got)
	}
}

func checkOrder(t *testing.T, names []string, e map[string]entry) {
	seen := map[string]bool{".": true}
	for _, n := range names {
		if dir := filepath.Dir(n); !seen[dir] || e[dir].mode&modeType != modeDir && dir != "." {
			t.Errorf("%s comes before its directory", n)
		}
		if seen[n] {
			t.Errorf("%s comes twice", n)
		}
		seen[n] = true
	}
}

func TestCompress(t *testing.T) {
	o := Options{Binary: staticBinary(t)}
	var plain, packed bytes.Buffer
	if _, err := Write(&plain, o); err != nil {
		t.Fatal(err)
	}
	o.Compress = true
	if _, err := Write(&packed, o); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, plain.Bytes()) {
		t.Errorf("compressed content differs (%v)", err)
	}
}

func TestWriteFileFails(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "initrd")
	for name, o := range map[string]Options{
		"no program":     {Binary: "/nosuch"},
		"no ELF":         {Binary: "/etc/passwd"},
		"no modules":     {Binary: staticBinary(t), ModulesDir: "/nosuch"},
		"no file":        {Binary: staticBinary(t), Files: map[string]string{"/x": "/nosuch"}},
		"takes the init": {Binary: staticBinary(t), Files: map[string]string{"/../init": "/etc/passwd"}},
		"a device":       {Binary: staticBinary(t), Files: map[string]string{"/x": "/dev/null"}},
		"ring":           {Binary: staticBinary(t), ModulesDir: testTree(t), Drivers: []string{"ring_a"}},
	} {
		if _, err := WriteFile(out, o); err == nil {
			t.Errorf("%s: no error", name)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: leaves %v (%v)", name, left, err)
		}
	}
	if _, err := WriteFile("/nosuch/initrd", Options{}); err == nil {
		t.Error("unwritable place: no error")
	}
}

func TestDynamicBinary(t *testing.T) {
	if err := checkStatic("/bin/sh"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Errorf("a dynamic program: %v", err)
	}
}

// TestQuick holds the promise of an initrd in under a second, for a program
// larger than this one will be. It counts processor time, so that a busy
// machine does not matter.
func TestQuick(t *testing.T) {
	binary := staticBinary(t)
	if err := os.Truncate(binary, 40<<20); err != nil {
		t.Fatal(err)
	}
	tree := testTree(t)
	for tries := 1; ; tries++ { // processors that share caches with a busy neighbour are slow at times
		var before, after unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
			t.Fatal(err)
		}
		n := &counter{}
		if _, err := Write(n, Options{Binary: binary, ModulesDir: tree}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
			t.Fatal(err)
		}
		used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		if n.n < 40<<20 {
			t.Fatalf("%d bytes", n.n)
		}
		if used <= time.Second {
			return
		}
		if tries == 10 {
			t.Fatalf("%d bytes in %v", n.n, used)
		}
	}
}

type counter struct{ n int }

func (c *counter) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

func FuzzModinfo(f *testing.F) {
	f.Add(fakeModule("depends=a,b softdep=pre:_x alias=pci:v*"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := readModinfo(data)
		if err != nil && (info.depends != nil || info.devices != nil) {
			t.Error("both a result and an error")
		}
	})
}

func FuzzModulesDep(f *testing.F) {
	f.Add("kernel/a.ko: kernel/b.ko\nkernel/b.ko:\n", "kernel/c.ko\n")
	f.Add("../../etc/passwd: /a/../../b\n:::\n", "")
	f.Fuzz(func(t *testing.T, dep, builtin string) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(dep), 0o644)
		os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte(builtin), 0o644)
		m, err := OpenModules(dir)
		if err != nil {
			return
		}
		for name, file := range m.files {
			if !filepath.IsLocal(file) {
				t.Errorf("%s lies outside: %q", name, file)
			}
			m.Resolve(name)
		}
	})
}
