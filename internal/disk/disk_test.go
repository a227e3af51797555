package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
)

func qemuImgRun(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

type imgInfo struct {
	Format        string `json:"format"`
	VirtualSize   int64  `json:"virtual-size"`
	Backing       string `json:"backing-filename"`
	FullBacking   string `json:"full-backing-filename"`
	BackingFormat string `json:"backing-filename-format"`
}

func imgInfoOf(t *testing.T, path string) imgInfo {
	var i imgInfo
	if err := json.Unmarshal(qemuImgRun(t, "info", "--output=json", path), &i); err != nil {
		t.Fatal(err)
	}
	return i
}

func mustCreate(t *testing.T, format, path, size string) string {
	t.Helper()
	if err := Create(t.Context(), format, path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOverlayIsWhatQEMUExpects(t *testing.T) {
	for _, c := range []struct {
		format, size string
		abs          bool
	}{
		{"qcow2", "10M", false}, {"raw", "512", false}, {"qcow2", "1000000", true}, {"qcow2", "512M", false},
		{"qcow2", "537133056", false}, {"raw", "20G", true}, {"qcow2", "8T", false},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "vm, 1"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("vm, 1", filepath.Join(dir, "link")); err != nil {
			t.Fatal(err)
		}
		base := mustCreate(t, c.format, filepath.Join(dir, "base img"), c.size)
		top := filepath.Join(dir, "link", "top.qcow2")
		if err := Overlay(base, top, c.abs); err != nil {
			t.Fatal(err)
		}
		qemuImgRun(t, "check", top)
		got, want := imgInfoOf(t, top), imgInfoOf(t, base)
		if got.Format != "qcow2" || got.VirtualSize != want.VirtualSize || got.BackingFormat != c.format {
			t.Errorf("%+v: overlay %+v of %+v", c, got, want)
		}
		backing := "../base img"
		if c.abs {
			backing = base
		}
		if got.Backing != backing {
			t.Errorf("%+v: backing file %q, want %q", c, got.Backing, backing)
		}
		if c.format == "raw" && c.size == "20G" {
			continue // comparing takes long
		}
		qemuImgRun(t, "compare", base, top)
		chain, err := Chain(top)
		if err != nil || len(chain) != 2 || chain[0].VirtualSize != want.VirtualSize || chain[1].Format != c.format || chain[0].BackingFormat != c.format {
			t.Errorf("%+v: chain %+v, %v", c, chain, err)
		}
	}
}

// TestOverlayTakesWrites has QEMU's own tool write through an overlay that we
// made, and checks contents and base afterwards.
func TestOverlayTakesWrites(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "base")
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	if err := os.WriteFile(base, want, 0o600); err != nil {
		t.Fatal(err)
	}
	top := filepath.Join(dir, "top")
	if err := Snapshot(t.Context(), base, top, false); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 0x55 65530 20", top).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	flat := filepath.Join(dir, "flat")
	qemuImgRun(t, "check", top)
	qemuImgRun(t, "convert", "-f", "qcow2", "-O", "raw", top, flat)
	got, err := os.ReadFile(flat)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(want)
	copy(changed[65530:], bytes.Repeat([]byte{0x55}, 20))
	if !bytes.Equal(got, changed) {
		t.Error("contents differ")
	}
	if now, err := os.ReadFile(base); err != nil || !bytes.Equal(now, want) {
		t.Errorf("base changed, %v", err)
	}
	if err := Commit(t.Context(), top); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(base); err != nil || !bytes.Equal(now, changed) {
		t.Errorf("commit did not reach the base, %v", err)
	}
}

// TestOtherFormats leaves to qemu-img what it alone understands.
func TestOtherFormats(t *testing.T) {
	for _, format := range []string{"vmdk", "vdi", "vpc", "vhdx", "qed", "parallels"} {
		dir := t.TempDir()
		base := filepath.Join(dir, "base")
		qemuImgRun(t, "create", "-q", "-f", format, base, "8M")
		if h, err := Inspect(base); err != nil || h.Format != format {
			t.Errorf("%s: %+v, %v", format, h, err)
		}
		top := filepath.Join(dir, "top")
		if err := Snapshot(t.Context(), base, top, false); err != nil {
			t.Error(err)
			continue
		}
		if i := imgInfoOf(t, top); i.BackingFormat != format || i.Backing != "base" || i.VirtualSize != imgInfoOf(t, base).VirtualSize {
			t.Errorf("%s: overlay %+v", format, i)
		}
	}
}

func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	base := mustCreate(t, "qcow2", filepath.Join(dir, "base.qcow2"), "1G")
	top := filepath.Join(dir, "top.qcow2")
	if err := Snapshot(t.Context(), base, top, false); err != nil {
		t.Fatal(err)
	}
	one, err := Describe(t.Context(), top, false)
	if err != nil || len(one) != 1 {
		t.Fatal(one, err)
	}
	if i := one[0]; i.Image != top || i.Format != "qcow2" || i.VirtualSize != "1.0 GiB" || i.BackingFile != "base.qcow2" || i.InUse ||
		!strings.HasSuffix(i.DiskSize, " KiB") {
		t.Errorf("info %+v", i)
	}
	all, err := Describe(t.Context(), top, true)
	if err != nil || len(all) != 2 || all[1].BackingFile != "" || all[1].VirtualSize != "1.0 GiB" {
		t.Errorf("recursive: %+v, %v", all, err)
	}
	if err := Resize(t.Context(), base, "+1G"); err != nil {
		t.Error(err)
	}
	if err := Resize(t.Context(), base, "-512M"); err != nil {
		t.Error(err)
	}
	if now := imgInfoOf(t, base).VirtualSize; now != 3<<29 {
		t.Errorf("resized to %d", now)
	}
}

func TestRebase(t *testing.T) {
	dir := t.TempDir()
	a := mustCreate(t, "qcow2", filepath.Join(dir, "a"), "1M")
	b := mustCreate(t, "raw", filepath.Join(dir, "b"), "1M")
	top := filepath.Join(dir, "top")
	if err := Snapshot(t.Context(), a, top, false); err != nil {
		t.Fatal(err)
	}
	check := func(err error, backing, format string) {
		t.Helper()
		if i := imgInfoOf(t, top); err != nil || i.Backing != backing || i.BackingFormat != format {
			t.Errorf("backing %q as %q, want %q as %q; %v", i.Backing, i.BackingFormat, backing, format, err)
		}
	}
	check(Rebase(t.Context(), top, b), "b", "raw")
	if err := os.Rename(a, filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	check(SetBacking(t.Context(), top, filepath.Join(dir, "moved")), "moved", "qcow2")
	check(Rebase(t.Context(), top, ""), "", "")
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) string {
		if err := os.WriteFile(at(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at(name)
	}
	good := mustCreate(t, "qcow2", at("good"), "1M")
	text := write("text", "not an image")
	qemuImgRun(t, "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", text, at("over-text"), "1M")
	qemuImgRun(t, "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "nbd://localhost/x", at("over-nbd"), "1M")
	qemuImgRun(t, "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", at("gone"), at("loop"), "1M")
	qemuImgRun(t, "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", at("loop"), at("loop"))
	qemuImgRun(t, "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", at("gone"), at("over-gone"), "1M")
	qemuImgRun(t, "create", "-q", "-f", "qcow2", "-o", "data_file="+at("data"), at("with-data"), "1M")
	ctx := t.Context()
	chain := func(name string) error { _, err := Chain(at(name)); return err }
	for _, c := range []struct {
		err  error
		kind errs.Kind
		want string
	}{
		{Create(ctx, "vdi", at("x"), "1M"), errs.Invalid, `invalid disk format "vdi"`},
		{Create(ctx, "raw", at("x"), "1M,x"), errs.Invalid, "invalid disk size"},
		{Create(ctx, "raw", at("x"), "-1M"), errs.Invalid, "invalid disk size"},
		{Create(ctx, "raw", at("x"), ""), errs.Invalid, "invalid disk size"},
		{Create(ctx, "raw", good, "1M"), errs.Exists, "exists already"},
		{Create(ctx, "qcow2", at("no/where"), "1M"), errs.NotFound, "directory " + at("no") + " does not exist"},
		{Create(ctx, "qcow2", at("x"), "9999999E"), errs.Invalid, "[image " + at("x") + "] "},
		{Snapshot(ctx, good, at("no/where"), false), errs.NotFound, "directory " + at("no") + " does not exist"},
		{Snapshot(ctx, good, text, false), errs.Exists, "exists already"},
		{Snapshot(ctx, at("gone"), at("x"), false), errs.NotFound, "disk image " + at("gone") + " does not exist"},
		{Snapshot(ctx, text, at("x"), false), errs.Invalid, "is no disk image: no known format, and 12 bytes"},
		{chain("."), errs.Invalid, "it is a directory"},
		{chain("over-text"), errs.Invalid, "backing file of " + at("over-text")},
		{chain("over-nbd"), errs.Invalid, "is no plain path"},
		{chain("loop"), errs.Invalid, "more than 64 backing files"},
		{chain("over-gone"), errs.NotFound, "does not exist"},
		{chain("with-data"), errs.Invalid, "data in another file"},
		{Commit(ctx, at("over-text")), errs.Invalid, "backing file of " + at("over-text")},
		{Rebase(ctx, at("over-text"), good), errs.Invalid, "backing file of " + at("over-text")},
		{Resize(ctx, good, "1x"), errs.Invalid, "invalid disk size"},
	} {
		if !errors.Is(c.err, c.kind) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got %v (%s)\nwant %s (%s)", c.err, errs.KindOf(c.err), c.want, c.kind)
		}
	}
	if _, err := os.Lstat(at("x")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a failed operation left a file")
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Create(cancelled, "raw", at("y"), "1M"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFullDisk fills a file system of its own.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	full := filepath.Join(dir, "full")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", full, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(full, unix.MNT_DETACH) })
	_ = os.WriteFile(filepath.Join(full, "ballast"), make([]byte, 60<<10), 0o600)
	base := mustCreate(t, "raw", filepath.Join(dir, "base"), "1M")
	err := Snapshot(t.Context(), base, filepath.Join(full, "top"), false)
	if !errors.Is(err, errs.Resource) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("overlay: %v", err)
	}
	err = Create(t.Context(), "qcow2", filepath.Join(full, "new"), "1M")
	if !errors.Is(err, errs.Resource) || !strings.Contains(err.Error(), "No space left on device: exit status 1") {
		t.Errorf("create: %v", err)
	}
	left, err := os.ReadDir(full)
	if err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLocks(t *testing.T) {
	dir := t.TempDir()
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	path := mustCreate(t, "raw", filepath.Join(dir, "img"), "1M")
	top := filepath.Join(dir, "top")
	if err := Snapshot(t.Context(), path, top, false); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		open               []string
		inUse, read, write bool // what others can do meanwhile
	}{
		"nobody":     {nil, false, true, true},
		"a writer":   {[]string{"-f", "raw", path}, true, false, false},
		"an overlay": {[]string{"-f", "qcow2", top}, true, true, false},
	} {
		stop := hold(t, c.open)
		inUse, err := InUse(path)
		read, write := Free(path, false), Free(path, true)
		stop()
		if err != nil || inUse != c.inUse || (read == nil) != c.read || (write == nil) != c.write {
			t.Errorf("opened by %s: in use %v, read %v, write %v, %v", name, inUse, read, write, err)
		}
		if read != nil && !errors.Is(read, errs.State) {
			t.Errorf("kind of %v", read)
		}
	}
}

// hold opens an image with QEMU's own tool until the function it returns is
// called.
func hold(t *testing.T, args []string) (stop func()) {
	if args == nil {
		return func() {}
	}
	cmd := exec.Command("qemu-io", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil { // the prompt
		t.Fatal(err)
	}
	return func() {
		_ = in.Close()
		_ = cmd.Wait()
	}
}

func TestIEC(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 512: "512 B", 1024: "1.0 KiB", 1 << 30: "1.0 GiB", 3 << 29: "1.5 GiB", 1 << 62: "4.0 EiB"} {
		if got := IEC(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func FuzzInspect(f *testing.F) {
	for _, backing := range []string{"a", strings.Repeat("b", 1000)} {
		parts, _, err := overlayBytes(1<<30, backing, "raw")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(parts[0])
	}
	f.Add(make([]byte, 512))
	f.Add([]byte("KDMV"))
	f.Add([]byte("conectix" + strings.Repeat("\xff", 60)))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := inspect(bytes.NewReader(b), int64(len(b)), "/base")
		if err != nil {
			return
		}
		if h.VirtualSize < 0 || h.Format == "" || len(h.Backing) > 2*maxBackingName {
			t.Fatalf("%+v", h)
		}
		if h.Backing != "" && !filepath.IsAbs(h.Backing) {
			t.Fatalf("relative backing file %q", h.Backing)
		}
	})
}
