package kvm

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
)

func TestCapabilities(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, Options{Accel: "tcg", CacheDir: dir})
	ctx := within(t, time.Minute)
	caps, err := e.Capabilities(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(caps.Version, ".") || !has(caps.CPUs, "qemu64") || !has(caps.CPUs, "host") || !has(caps.Machines, "pc") ||
		!has(caps.NetDrivers, "e1000") || !has(caps.NetDrivers, "virtio-net-pci") || has(caps.NetDrivers, "usb-tablet") ||
		!has(caps.Devices, "usb-tablet") || !has(caps.Chardevs, "socket") {
		t.Errorf("%+v", caps)
	}
	for _, list := range []func() ([]string, error){
		func() ([]string, error) { return e.CPUs(ctx, "") }, func() ([]string, error) { return e.Machines(ctx, "kvm") },
		func() ([]string, error) { return e.NetDrivers(ctx, plainQEMU) },
	} {
		if names, err := list(); err != nil || len(names) < 5 {
			t.Errorf("%q, %v", names, err)
		}
	}
	// A new engine reads what the first one left; a spoiled file is asked anew.
	files, err := filepath.Glob(filepath.Join(dir, "qemu-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("cached: %q, %v", files, err)
	}
	if err := os.WriteFile(files[0], []byte(`{"Version": "from the cache"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := newEngine(t, Options{Accel: "tcg", CacheDir: dir}).Capabilities(ctx, ""); err != nil || again.Version != "from the cache" {
		t.Errorf("cached: %+v, %v", again, err)
	}
	if err := os.WriteFile(files[0], []byte(`{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := newEngine(t, Options{Accel: "tcg", CacheDir: dir}).Capabilities(ctx, ""); err != nil || !reflect.DeepEqual(again, caps) {
		t.Errorf("asked anew: %+v, %v", again, err)
	}
}

func TestNotQEMU(t *testing.T) {
	e := newEngine(t, tcg)
	for text, want := range map[string]string{
		"echo GNU bash":       `is not QEMU: it calls itself "GNU bash"`,
		"echo no >&2; exit 3": "exit status 3: no",
	} {
		_, err := e.Capabilities(within(t, time.Minute), script(t, text))
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, errs.Internal) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestParseHelp covers the forms of other versions.
func TestParseHelp(t *testing.T) {
	if got := parseCPUs("Available CPUs:\n  486-v1  (alias)\n  qemu64\n\nRecognized CPUID flags:\n  fpu vme\n"); !reflect.DeepEqual(got, []string{"486-v1", "qemu64"}) {
		t.Errorf("CPUs of 9.1: %q", got)
	}
	if got := parseCPUs("Available CPUs:\nx86 486       (alias)\nx86 host  KVM processor\n\n"); !reflect.DeepEqual(got, []string{"486", "host"}) {
		t.Errorf("CPUs of 7.2: %q", got)
	}
	if got := parseVersion("QEMU emulator version 11.0.1 (v11)\n"); got != "11.0.1" {
		t.Errorf("version %q", got)
	}
	all, net := parseDevices("Network devices:\nname \"e1000\", bus PCI, alias \"e1000-82540em\", desc \"x\"\n\nInput devices:\nname \"usb-kbd\", bus usb-bus\n")
	if strings.Join(all, " ") != "e1000 e1000-82540em usb-kbd" || strings.Join(net, " ") != "e1000 e1000-82540em" {
		t.Errorf("devices %q, %q", all, net)
	}
}

func FuzzParseHelp(f *testing.F) {
	f.Add("Available CPUs:\nx86 486\n\nNetwork devices:\nname \"e1000\", bus PCI\n")
	f.Fuzz(func(t *testing.T, s string) {
		all, net := parseDevices(s)
		for _, list := range [][]string{parseCPUs(s), parseList(s), all, net} {
			for _, name := range list {
				if name == "" || !has(list, name) {
					t.Fatalf("%q in %q", name, list)
				}
			}
		}
		if strings.ContainsAny(clean(s), "\n\r\x1b\x00") {
			t.Fatalf("%q", clean(s))
		}
	})
}

// TestGuestUnderTCG shows that the test guest itself is right: where the
// processor is complete, it runs to its end.
func TestGuestUnderTCG(t *testing.T) {
	path, err := findQEMU(plainQEMU)
	if err != nil {
		t.Fatal(err)
	}
	r, err := runGuest(within(t, time.Minute), path, "tcg", "max")
	if err != nil || !r.finished || r.steps != "RLIFMSTU........" || r.reason() != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestGuestFails breaks the guest in each way that it can fail.
func TestGuestFails(t *testing.T) {
	path := script(t, `printf RL; echo 'KVM internal error. Suberror: 1' >&2; kill -STOP $$`)
	r, err := runGuest(within(t, time.Minute), path, "kvm", "host")
	if err != nil || r.finished || r.timeout || !strings.HasSuffix(r.reason(), "got no further than 64-bit mode: KVM internal error. Suberror: 1") {
		t.Errorf("internal error: %+v, %v", r, err)
	}
	r, err = runGuest(within(t, time.Minute), script(t, `printf R; kill -STOP $$`), "kvm", "host")
	if err != nil || r.finished || !r.timeout || !strings.HasSuffix(r.reason(), "got no further than real mode in time") {
		t.Errorf("hang: %+v, %v", r, err)
	}
	r, err = runGuest(within(t, time.Minute), script(t, `echo 'failed to initialize kvm' >&2; exit 1`), "kvm", "host")
	if err != nil || r.finished || r.timeout || !strings.HasSuffix(r.reason(), "did not start: failed to initialize kvm") {
		t.Errorf("refusal: %+v, %v", r, err)
	}
}

func TestKVMStatus(t *testing.T) {
	dir := t.TempDir()
	ctx := within(t, time.Minute)
	p := newKVMProbe(Options{CacheDir: dir})
	p.device = filepath.Join(dir, "none")
	if s := p.status(ctx); s.Works || !strings.Contains(s.Reason, "does not exist") {
		t.Errorf("no device: %+v", s)
	}
	p = newKVMProbe(Options{CacheDir: dir})
	p.device = os.DevNull
	storeCache(dir, "kvm-"+bootID(), KVMStatus{Works: true})
	if s := p.status(ctx); !s.Works {
		t.Errorf("cached: %+v", s)
	}
	if s := newKVMProbe(Options{Accel: "kvm"}).status(ctx); !s.Works {
		t.Errorf("forced: %+v", s)
	}
	if s := newKVMProbe(tcg).status(ctx); s.Works || s.Reason == "" {
		t.Errorf("forced: %+v", s)
	}
}
