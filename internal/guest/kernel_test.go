package guest

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
)

func put(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func fakeKernel() []byte {
	k := make([]byte, 1024)
	copy(k[0x202:], "HdrS")
	return k
}

func TestFindKernel(t *testing.T) {
	root := t.TempDir()
	at := func(p string) string { return filepath.Join(root, p) }
	find := func(named string) (Kernel, error) {
		return findKernel(named, at("dir"), at("boot"), at("lib/modules"), "5.0")
	}
	_, err := find("")
	if !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), "setup/kernel") {
		t.Errorf("nothing there: %v", err)
	}
	expect := func(step, named string, want Kernel) {
		t.Helper()
		got, err := find(named)
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", step, got, err)
		}
	}
	put(t, at("boot/vmlinuz-4.0"), fakeKernel())
	put(t, at("boot/vmlinuz-broken"), []byte("no kernel"))
	expect("one without modules", "", Kernel{at("boot/vmlinuz-4.0"), "", "", "4.0"})
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(at("boot/vmlinuz-4.0"), old, old); err != nil {
		t.Fatal(err)
	}
	put(t, at("boot/vmlinuz-4.1"), fakeKernel())
	put(t, at("lib/modules/4.0/kernel/x.ko"), nil)
	expect("modules count more than age", "", Kernel{at("boot/vmlinuz-4.0"), "", at("lib/modules/4.0"), "4.0"})
	put(t, at("lib/modules/5.0/kernel/x.ko"), nil)
	put(t, at("boot/vmlinuz-5.0"), fakeKernel())
	expect("the running one", "", Kernel{at("boot/vmlinuz-5.0"), "", at("lib/modules/5.0"), "5.0"})
	put(t, at("dir/vmlinuz"), fakeKernel())
	put(t, at("dir/version"), []byte("6.0\n"))
	put(t, at("dir/modules/kernel/x.ko"), nil)
	expect("ours", "", Kernel{at("dir/vmlinuz"), "", at("dir/modules"), "6.0"})
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	put(t, at("dir/vmlinux"), exe)
	expect("unpacked", "", Kernel{at("dir/vmlinuz"), at("dir/vmlinux"), at("dir/modules"), "6.0"})
	expect("named", at("boot/vmlinuz-4.1"), Kernel{at("boot/vmlinuz-4.1"), "", "", "4.1"})
	for _, bad := range []string{at("boot/vmlinuz-broken"), at("nosuch"), at("lib")} {
		if _, err := find(bad); !errors.Is(err, errs.NotFound) || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCommandErrors(t *testing.T) {
	t.Setenv(KernelEnv, "/nosuch")
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"", 2, "usage: minimega guest"},
		{"fly", 2, `no command "fly"`},
		{"initrd -x", 2, "-x"},
		{"initrd file", 2, `"file"`},
		{"initrd -add foo", 2, "SOURCE:PLACE"},
		{"kernel", 1, "/nosuch"},
		{"initrd", 1, "$MINIMEGA_KERNEL"},
		{"initrd -kernel /etc/passwd", 1, "/etc/passwd"},
		{"disk", 1, "/nosuch"},
	} {
		var out, complaint bytes.Buffer
		status := Command(t.Context(), strings.Fields(c.args), &out, &complaint)
		if status != c.status || !strings.Contains(complaint.String(), c.says) || out.Len() > 0 {
			t.Errorf("%s: status %d, %q, %q", c.args, status, out.String(), complaint.String())
		}
	}
}

func TestCommandHelp(t *testing.T) {
	for args, says := range map[string]string{"help": "hostname=NAME", "initrd -h": "-add SOURCE:PLACE", "disk -h": "-append WORDS", "kernel -h": "-v"} {
		var out, complaint bytes.Buffer
		if status := Command(t.Context(), strings.Fields(args), &out, &complaint); status != 0 || !strings.Contains(out.String(), says) || complaint.Len() > 0 {
			t.Errorf("%s: status %d, %q, %q", args, status, out.String(), complaint.String())
		}
	}
}

func TestIsInit(t *testing.T) {
	if IsInit() {
		t.Error("this test is no guest")
	}
}
