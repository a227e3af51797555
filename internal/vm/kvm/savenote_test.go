package kvm

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/vm"
)

// cutOff is a save that its daemon left at some point.
type cutOff struct {
	name string
	// do goes that far. The save is begun, and knows its files.
	do func(*testing.T, context.Context, *save)
	// why is what the next daemon says about it, "" if it completes it.
	why string
	// gone is what is said if QEMU ends before there is one, "" if it is complete.
	gone string
}

// underWay has QEMU copy the disks.
func underWay(t *testing.T, ctx context.Context, s *save) {
	must(t, s.create(ctx), s.pause(ctx), s.copyDisks(ctx), s.note(saveUnderWay, nil))
}

func must(t *testing.T, list ...error) {
	t.Helper()
	for _, err := range list {
		if err != nil {
			t.Fatal(err)
		}
	}
}

const (
	sayBegun = "minimega was killed when it had just begun"
	sayGone  = "QEMU ended before it was complete, while no minimega ran"
)

var cutOffs = []cutOff{
	{"nothing asked", func(t *testing.T, ctx context.Context, s *save) { must(t, s.create(ctx)) }, sayBegun, sayGone},
	{"disks asked for", func(t *testing.T, ctx context.Context, s *save) {
		must(t, s.create(ctx), s.pause(ctx), s.copyDisks(ctx))
	}, sayBegun, sayGone},
	{"disks being copied", underWay, "", sayGone},
	{"disk lost", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.cancel())
	}, "copy disks: QEMU has given up a copy", sayGone},
	{"guest goes on", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.m.execute(ctx, "cont", nil, nil))
	}, "write the state: its guest went on running", sayGone},
	{"disks copied", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx))
	}, "", sayGone},
	{"state being written", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.beginMigrate(ctx))
	}, "", sayGone},
	{"state written", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.migrate(ctx))
	}, "", sayGone},
	{"files removed", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.beginMigrate(ctx), s.remove())
	}, "name the files: what was to become ", sayGone},
	{"disk named", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.migrate(ctx), s.note(saveNaming, nil), os.Rename(s.files[0].Temp, s.files[0].Final))
	}, "", ""},
	{"all named", func(t *testing.T, ctx context.Context, s *save) {
		underWay(t, ctx, s)
		must(t, s.disksCopied(ctx), s.migrate(ctx), s.note(saveNaming, nil), s.rename())
	}, "", ""},
}

// leave launches a machine that was saved before, which shall not be taken for
// the save that is cut off. It returns what the next daemon needs, and the
// state that was there before.
func (c cutOff) leave(t *testing.T, ctx context.Context, e *Engine, to vm.SaveFiles) (*vm.Spec, int, os.FileInfo) {
	t.Helper()
	conf := small()
	conf.Disks = []vm.DiskConfig{{Path: bootDisk(t, counting, nil)}}
	spec := spec(t, 1, conf)
	made, err := e.Launch(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	m := made.(*Machine)
	must(t, m.Start(ctx))
	untilCount(t, m, 2)
	must(t, m.Save(ctx, to))
	if now := saved(t, m); now.Status != vm.SaveCompleted {
		t.Fatalf("%+v", now)
	}
	first, err := os.Stat(to.State)
	must(t, err)
	s := &save{m: m, log: m.log, ram: m.memory}
	must(t, s.find(ctx, to))
	c.do(t, ctx, s)
	must(t, m.Close())
	return spec, m.Pid(), first
}

// TestSaveCutOff leaves saves at all points where a daemon can be killed: the
// next one completes them, or says that they failed and why, and leaves nothing.
func TestSaveCutOff(t *testing.T) {
	e := newEngine(t, tcg)
	for _, c := range cutOffs {
		t.Run(c.name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			dir := t.TempDir()
			to := vm.SaveFiles{State: filepath.Join(dir, "state"), Disk: filepath.Join(dir, "hdd")}
			spec, pid, first := c.leave(t, ctx, e, to)
			defer reap(pid)
			for range 2 { // the one after the next knows it, too
				m := adopt(t, ctx, e, spec, pid)
				c.check(t, saved(t, m))
				must(t, m.Close())
			}
			if list := files(t, dir); !slices.Equal(list, []string{"hdd", "state"}) {
				t.Errorf("there are %v", list)
			}
			second, err := os.Stat(to.State)
			must(t, err)
			if replaced := !os.SameFile(first, second); replaced != (c.why == "") {
				t.Errorf("the files were replaced: %v", replaced)
			}

			m := adopt(t, ctx, e, spec, pid)
			defer m.Close()
			defer m.Kill(ctx)
			if at, got := count(t, m), diskCount(t, to.Disk); c.why == "" && got != at && got+1 != at {
				t.Errorf("memory has %d, the saved disk %d", at, got)
			}
			must(t, m.Start(ctx), m.Save(ctx, to))
			if now := saved(t, m); now.Status != vm.SaveCompleted {
				t.Errorf("again: %+v", now)
			}
		})
	}
}

func (c cutOff) check(t *testing.T, now vm.SaveStatus) {
	t.Helper()
	if c.why == "" {
		if now.Status != vm.SaveCompleted || now.Percent != 100 || now.Err != nil {
			t.Errorf("%+v", now)
		}
	} else if now.Status != vm.SaveFailed || !strings.HasPrefix(now.Err.Error(), c.why) {
		t.Errorf("%+v", now)
	}
}

func adopt(t *testing.T, ctx context.Context, e *Engine, spec *vm.Spec, pid int) *Machine {
	t.Helper()
	next := *spec
	next.Config = spec.Config.Clone()
	next.Config.Disks[0].SnapshotPath = ""
	m, err := e.Adopt(ctx, &next, pid)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // reap waits for it
		t.Fatal(err)
	}
	return m.(*Machine)
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestSaveCutOffGone has QEMU end as well, before there is a next daemon.
func TestSaveCutOffGone(t *testing.T) {
	e := newEngine(t, tcg)
	for _, c := range cutOffs {
		t.Run(c.name, func(t *testing.T) {
			ctx := within(t, time.Minute)
			dir := t.TempDir()
			spec, pid, _ := c.leave(t, ctx, e, vm.SaveFiles{State: filepath.Join(dir, "state"), Disk: filepath.Join(dir, "hdd")})
			p, err := os.FindProcess(pid)
			must(t, err, p.Kill())
			reap(pid)
			for range 2 {
				must(t, e.Clean(ctx, spec.Dir))
			}
			if list := files(t, dir); !slices.Equal(list, []string{"hdd", "state"}) {
				t.Errorf("there are %v", list)
			}
			now, ok := e.Saved(spec.Dir)
			if !ok {
				t.Error("nothing is known of it")
			}
			c.why = c.gone
			c.check(t, now)
		})
	}
}

// Whatever stands in the note, a machine can be taken over and saved.
func TestSaveNoteTorn(t *testing.T) {
	e := newEngine(t, tcg)
	for _, text := range []string{"", "{}", `[]`, `{"Stage": "under way"}`, `{"Stage": "naming", "Files": []}`, `{"Stage": "?", "Files": [{}]}`} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, saveNoteName), []byte(text), 0o600))
		if n, err := readSaveNote(dir); n == nil == (err == nil) {
			t.Errorf("%q: %+v, %v", text, n, err)
		}
		_ = e.Clean(t.Context(), dir) // must not panic
	}
}
