package kvm

import (
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"minimega/internal/vm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func nics(n int) []vm.NetConfig {
	var list []vm.NetConfig
	for i := range n {
		list = append(list, vm.NetConfig{Tap: "mega_tap" + string(rune('a'+i)), MAC: "00:00:00:00:00:01", Driver: "e1000"})
	}
	return list
}

func TestArgs(t *testing.T) {
	for name, c := range map[string]struct {
		set   func(*vm.Config)
		accel accel
		huge  string
	}{
		"default": {func(*vm.Config) {}, withKVM, ""},
		"tcg":     {func(c *vm.Config) { c.UUID = "b0d8a3f4-0000-4000-8000-000000000001" }, withTCG, ""},
		"full": {func(c *vm.Config) {
			c.Memory, c.VCPUs, c.Cores, c.Threads, c.Sockets = 512, 4, 2, 1, 2
			c.Machine, c.CPU, c.Vga, c.UsbUseXHCI = "q35", "qemu64,+aes", "cirrus", false
			c.TpmSocketPath, c.SerialPorts, c.VirtioPorts = "/tmp/tpm,1", 2, "foo, bar"
			c.MigratePath, c.CdromPath = "/f/x.state", "/f/a,b.iso"
			c.KernelPath, c.InitrdPath, c.Append = "/f/k", "/f/i", []string{"console=ttyS0", "quiet"}
			c.Disks = []vm.DiskConfig{
				{Path: "/f/a.qc2", SnapshotPath: "/b/7/disk-0.qcow2"}, {Path: "/f/b,c", Interface: "virtio", Cache: "none"},
				{Path: "/f/d", Interface: "ahci"}, {Path: "/f/e", Interface: "ahci"},
				{Path: "/f/g", Interface: "scsi"},
			}
			c.Networks, c.BidirectionalCopyPaste = nics(2), true
			c.QemuAppend, c.UUID = []string{"-device", "usb-mouse"}, "u"
		}, withKVM, "/dev/hugepages"},
		"bridges": {func(c *vm.Config) { c.Snapshot, c.Networks, c.VirtioPorts = false, nics(40), "31" }, withKVM, ""},
		"bare": {func(c *vm.Config) {
			c.Backchannel, c.Disks = false, []vm.DiskConfig{{Path: "/f/x"}}
			c.Snapshot = false
		}, withKVM, ""},
	} {
		cfg := vm.NewConfig()
		c.set(cfg)
		got, err := args(argSpec{id: 7, dir: "/b/7", config: cfg, accel: c.accel, hugepages: c.huge, ahciDisk: "ide-hd"})
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name+".args", lines(got))
	}
}

// lines puts each option on a line of its own.
func lines(list []string) string {
	var b strings.Builder
	for i, s := range list {
		switch {
		case i == 0:
		case strings.HasPrefix(s, "-"):
			b.WriteByte('\n')
		default:
			b.WriteByte(' ')
		}
		b.WriteString(Join([]string{s}))
	}
	return b.String() + "\n"
}

func TestCPUModel(t *testing.T) {
	for _, c := range []struct {
		cpu  string
		a    accel
		want string
	}{
		{"host", withKVM, "host"}, {"host", withTCG, "max"}, {"host,-avx", withTCG, "max,-avx"}, {"hostile", withTCG, "hostile"},
	} {
		if got := cpuModel(c.cpu, c.a); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestPortNames(t *testing.T) {
	for in, want := range map[string]string{
		"": "[]", "0": "[]", "2": "[virtio-serial0 virtio-serial1]", "a,b": "[a b]", "901": "901 virtio ports are too many, at most 900",
		"a,,b": `empty name in virtio-ports "a,,b"`,
	} {
		names, err := portNames(in)
		got := "[" + strings.Join(names, " ") + "]"
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestOverride(t *testing.T) {
	list := []string{"-name", "7", "-append", "a b", "-x", ""}
	for _, c := range []struct {
		o    []vm.Override
		want []string
	}{
		{nil, list},
		{[]vm.Override{{Match: "a b", Repl: "c d"}}, []string{"-name", "7", "-append", "c d", "-x", ""}},
		{[]vm.Override{{Match: "-name 7", Repl: `-name "x y"`}, {Match: "-x", Repl: ""}}, []string{"-name", "x y", "-append", "a b", ""}},
		{[]vm.Override{{Match: "", Repl: "boom"}}, list},
	} {
		if got := override(list, c.o); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %q, want %q", c.o, got, c.want)
		}
	}
}

func TestSplitUndoesJoin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A quote within a word is the only thing that Join cannot leave bare.
		list := rapid.SliceOf(rapid.StringOf(rapid.SampledFrom([]rune(`ab -=,"\ é`+"\t\n")))).Draw(t, "list")
		got := Split(Join(list))
		if len(got) == 0 && len(list) == 0 {
			return
		}
		if !reflect.DeepEqual(got, list) {
			t.Fatalf("%q: joined %s, split %q", list, Join(list), got)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(`-a "b c" d`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, line string) {
		list := Split(line)
		n := 0
		for _, s := range list {
			n += len(s)
		}
		if n > 3*len(line) { // a broken byte may become U+FFFD
			t.Fatalf("%d bytes from %d", n, len(line))
		}
	})
}
