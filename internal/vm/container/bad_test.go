package container

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/internal/vm"
)

func wantErr(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v (%s), want %q (%s)", err, errs.KindOf(err), text, kind)
	}
}

func TestCheck(t *testing.T) {
	b := newBench(t)
	file := filepath.Join(b.base, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*vm.Config)
		kind   errs.Kind
		text   string
	}{
		{func(c *vm.Config) { c.FilesystemPath = "" }, errs.Invalid, "unable to create container without a configured filesystem"},
		{func(c *vm.Config) { c.FilesystemPath = "/nonexistent" }, errs.NotFound, "filesystem /nonexistent does not exist"},
		{func(c *vm.Config) { c.FilesystemPath = file }, errs.Invalid, "is not a directory"},
		{func(c *vm.Config) { c.Init = nil }, errs.Invalid, "needs a program to run"},
		{func(c *vm.Config) { c.Init = []string{"/a\x00b"} }, errs.Invalid, "zero byte"},
		{func(c *vm.Config) { c.Init = []string{strings.Repeat("x", 1<<17)} }, errs.Invalid, "too long"},
		{func(c *vm.Config) { c.Hostname = strings.Repeat("h", 65) }, errs.Invalid, "longer than 64"},
		{func(c *vm.Config) { c.VCPUs = 0 }, errs.Invalid, "at least one vcpu"},
		{func(c *vm.Config) { c.Memory = 0 }, errs.Invalid, "1 MB"},
		{func(c *vm.Config) { c.Fifos = 1e6 }, errs.Invalid, "too many fifos"},
		{func(c *vm.Config) { c.VolumePaths = map[string]string{"/x": "relative"} }, errs.Invalid, "not an absolute path"},
		{func(c *vm.Config) { c.Preinit = "/nonexistent" }, errs.NotFound, "preinit /nonexistent"},
		{func(c *vm.Config) { c.Preinit = "relative" }, errs.Invalid, "preinit relative"},
		{func(c *vm.Config) { c.Bonds = []vm.BondConfig{{}} }, errs.Unsupported, "bonds: not supported by container"},
	} {
		config := b.config("sleep")
		c.change(config)
		wantErr(t, b.engine.Check(t.Context(), config), c.kind, c.text)
	}
	if err := b.engine.Check(t.Context(), b.config("sleep")); err != nil {
		t.Error(err)
	}
}

// foreign is the guest made for another processor.
func foreign(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Clone(text)
	binary.LittleEndian.PutUint16(text[18:], uint16(elf.EM_S390))
	return text
}

// What can only be found out inside: a clear error, and nothing is left (which
// the bench checks).
func TestBadContainers(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*testing.T, *bench, *vm.Config)
		kind    errs.Kind
		text    string
	}{
		"no init": {func(_ *testing.T, _ *bench, c *vm.Config) { c.Init = []string{"/init"} }, errs.NotFound, "the file system has no /init to run as init"},
		"init is a directory": {func(_ *testing.T, _ *bench, c *vm.Config) { c.Init = []string{"/tmp"} },
			errs.Invalid, "/tmp is no program"},
		"init is text": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("text", []byte("hello"), 0o755)
			c.Init = []string{"/text"}
		},
			errs.Invalid, "/text is no program: neither ELF nor a script"},
		"init may not be executed": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("plain", []byte("#!/guest\n"), 0o644)
			c.Init = []string{"/plain"}
		},
			errs.Invalid, "init /plain cannot be executed"},
		"script without interpreter": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("script", []byte("#!/bin/sh\n"), 0o755)
			c.Init = []string{"/script"}
		}, errs.NotFound, "/script needs /bin/sh, which the file system does not have"},
		"script of itself": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("script", []byte("#!/script\n"), 0o755)
			c.Init = []string{"/script"}
		}, errs.Invalid, "script of a script"},
		"another processor": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("foreign", foreign(t), 0o755)
			c.Init = []string{"/foreign"}
		},
			errs.Unsupported, "/foreign is a program for S390"},
		"cut short": {func(t *testing.T, b *bench, c *vm.Config) {
			b.file("cut", foreign(t)[:30], 0o755)
			c.Init = []string{"/cut"}
		},
			errs.Invalid, "/cut is no program"},
		"volume of no directory": {func(t *testing.T, b *bench, c *vm.Config) {
			c.VolumePaths = map[string]string{"/v": b.base + "/no/such"}
		},
			errs.NotFound, "volume /v: there is no directory"},
		"volume in place of everything": {func(t *testing.T, b *bench, c *vm.Config) { c.VolumePaths = map[string]string{"/../": b.base} },
			errs.Invalid, "a volume cannot take the place of the whole file system"},
		"volume on a file": {func(t *testing.T, b *bench, c *vm.Config) { c.VolumePaths = map[string]string{"/guest": b.base} },
			errs.Internal, "mount volume /guest"},
		"preinit fails": {func(t *testing.T, b *bench, c *vm.Config) { c.Preinit = "/bin/false" },
			errs.State, "preinit /bin/false ended with exit status 1"},
		"preinit is no program": {func(t *testing.T, b *bench, c *vm.Config) {
			c.Preinit = b.root + "/text"
			b.file("text", []byte("hello"), 0o755)
		},
			errs.Internal, "run preinit"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			config := b.config("sleep")
			c.prepare(t, b, config)
			s := b.spec(config)
			m, err := b.engine.Launch(t.Context(), s)
			if err == nil {
				b.endAfter(m)
				t.Fatal("launched")
			}
			wantErr(t, err, c.kind, c.text)
			b.empty(s.Dir)
		})
	}
}

func (b *bench) file(name string, text []byte, mode os.FileMode) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.root, name), text, mode); err != nil {
		b.t.Fatal(err)
	}
}

// empty checks that a failed launch left nothing in its directory, and no
// process, mount or group.
func (b *bench) empty(dir string) {
	b.t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		b.t.Errorf("left in %s: %v %v", dir, entries, err)
	}
	var left []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		left, _ = filepath.Glob("/sys/fs/cgroup/*/" + groupParent(b.base) + "/*/")
		for _, line := range b.machine.Since(b.before) {
			if !strings.HasPrefix(line, "cgroup") { // the engine's own, until it is closed
				left = append(left, line)
			}
		}
		if len(left) == 0 { // at once, unless the kernel is busy
			return
		}
	}
	b.t.Error("left behind: ", left)
}

// A launch that is cancelled at any moment leaves nothing.
func TestCancelled(t *testing.T) {
	b := newBench(t)
	launched := 0
	for after := time.Duration(0); launched < 3 && after < time.Minute; after += 200*time.Microsecond + after/50 {
		s := b.spec(b.config("sleep"))
		ctx, cancel := context.WithTimeout(t.Context(), after)
		m, err := b.engine.Launch(ctx, s)
		cancel()
		if err != nil {
			b.empty(s.Dir)
			continue
		}
		launched++
		if err := errors.Join(m.Kill(t.Context()), m.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if launched == 0 {
		t.Error("never launched")
	}
}

// Each step fails in turn: the program of the container is made to end with an
// error at every one of its calls.
func TestEachCallFails(t *testing.T) {
	b := newBench(t)
	pl := &plan{dir: b.base, root: b.base, Program: Program{Args: []string{"/x"}, Dir: "/a/b", UID: 1, GID: 1, Groups: []uint32{1, 2, 3}}, overlay: true, lower: []string{b.root}, filter: b.engine.filter}
	n := len(pl.build().Calls)
	if testing.Short() {
		n = 10
	}
	for at := range n {
		s := b.spec(b.config("sleep"))
		b.engine.edit = func(p *program) {
			if at < len(p.Calls) {
				p.Calls[at].Nr, p.Calls[at].May = 100000, 0 // no such call
			}
		}
		m, err := b.engine.Launch(t.Context(), s)
		if err == nil { // after the launch: the start fails, or nothing does
			if err = errors.Join(m.Kill(t.Context()), m.Close()); err != nil {
				t.Errorf("call %d: %v", at, err)
			}
			continue
		}
		b.empty(s.Dir)
	}
}
