package container

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"minimega/internal/vm"
)

// A file system in which a link stands where the kernel's are to be mounted: the
// mount would be where the link leads, and later steps, when it leads elsewhere,
// would protect something else.
func TestLinksAtMounts(t *testing.T) {
	for name, links := range map[string]map[string]string{
		"that moves": {"proc": "dev/p", "dev/p": "../real"},
		"/proc":      {"proc": "real"},
		"/sys":       {"sys": "real"},
		"/dev":       {"dev": "real"},
		"dangling":   {"proc": "/nowhere"},
	} {
		for i := range 4 {
			t.Run(fmt.Sprintf("%s, snapshot %v, userns %v", name, i%2 == 0, i > 1), func(t *testing.T) {
				b := newBench(t)
				if err := os.Mkdir(filepath.Join(b.root, "real"), 0o755); err != nil {
					t.Fatal(err)
				}
				for at, to := range links {
					at = filepath.Join(b.root, at)
					if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.Symlink(to, at); err != nil {
						t.Fatal(err)
					}
				}
				c := b.config("unmasked")
				c.Snapshot, c.UserNS = i%2 == 0, i > 1
				m, err := b.engine.Launch(t.Context(), b.spec(c))
				if err == nil {
					b.endAfter(m)
					if err := m.Start(t.Context()); err != nil {
						t.Fatal(err)
					}
					code, shown := b.wait(m.(*Machine))
					t.Fatalf("launched, exit status %d: %s", code, shown)
				}
				if !strings.Contains(err.Error(), "is a link or a file, and no directory") {
					t.Error(err)
				}
			})
		}
	}
}

// What a container leaves in its file system and volumes leads the host nowhere
// when it is launched again, and when it is removed.
func TestLinksOfContainers(t *testing.T) {
	b := newBench(t)
	for i := range 4 {
		secret := filepath.Join(b.base, fmt.Sprint("secret", i))
		precious := filepath.Join(secret, "precious")
		err := os.Mkdir(secret, 0o750)
		if err == nil {
			err = os.WriteFile(precious, []byte("of the host"), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
		before := listed(t, secret)
		vol := filepath.Join(b.base, fmt.Sprint("vol", i))
		if err := os.Mkdir(vol, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(vol, 0o777); err != nil {
			t.Fatal(err)
		}
		c := b.config("plant", secret)
		c.Snapshot, c.UserNS, c.VolumePaths = i%2 == 0, i > 1, map[string]string{"/vol": vol}
		s := b.spec(c)
		if !c.Snapshot { // as a container finds it that made these links in an earlier life
			t.Cleanup(func() { removeLinks(t, b.root) })
		}
		first := b.again(s)
		if code, shown := b.wait(first); code != 0 {
			t.Fatalf("snapshot %v, userns %v: %s", c.Snapshot, c.UserNS, shown)
		}
		c.Init = []string{"/guest", "exit", "0"}
		c.VolumePaths["/data/below"] = vol
		c.VolumePaths["/vol/relative/below"] = vol
		if !c.Snapshot {
			if _, err := b.engine.Launch(t.Context(), s); err == nil || !strings.Contains(err.Error(), filepath.Join(b.root, backchannelName)) {
				t.Errorf("launched in the place of a link, or: %v", err)
			}
			if err := os.Remove(filepath.Join(b.root, backchannelName)); err != nil {
				t.Fatal(err)
			}
		}
		// Where a link leads out of the root there is nothing inside: either that
		// is said, or the place is made inside.
		if m, err := b.engine.Launch(t.Context(), s); err == nil {
			b.endAfter(m)
		}
		if after := listed(t, secret); after != before {
			t.Errorf("snapshot %v, userns %v: the host's directory holds\n%s\nand held\n%s", c.Snapshot, c.UserNS, after, before)
		}
		if got := readFile(precious); got != "of the host" {
			t.Errorf("the host's file holds %q", got)
		}
		if err := os.RemoveAll(vol); err != nil {
			t.Error(err)
		}
		if after := listed(t, secret); after != before {
			t.Errorf("removing a volume went on to %s", after)
		}
		if !c.Snapshot {
			removeLinks(t, b.root)
		}
	}
}

// A container that replaces its socket by a link while no daemon runs: the next
// one follows it nowhere.
func TestLinkAtSocketAdopted(t *testing.T) {
	b := newBench(t)
	secret := filepath.Join(b.base, "secret")
	precious := filepath.Join(secret, "precious")
	err := os.Mkdir(secret, 0o750)
	if err == nil {
		err = os.WriteFile(precious, []byte("of the host"), 0o640)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := listed(t, secret)
	c := b.config("plant", secret, "stay")
	c.Snapshot, c.VolumePaths = false, map[string]string{"/vol": filepath.Join(b.base, "vol")}
	s := b.spec(c)
	first, err := b.engine.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeper := first.(*Machine).keeper.pid
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(b.root, backchannelName)
	until(t, "the link", func() bool { to, err := os.Readlink(socket); return err == nil && to == precious })
	later := New(b.engine.opts, b.engine.log)
	t.Cleanup(func() {
		if err := later.Close(); err != nil {
			t.Error(err)
		}
	})
	m, err := later.Adopt(t.Context(), s, keeper)
	if err != nil {
		t.Fatal(err)
	}
	b.endAfter(m)
	if err := m.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(socket); to != precious {
		t.Errorf("what it left is %q, %v", to, err)
	}
	if after := listed(t, secret); after != before || readFile(precious) != "of the host" {
		t.Errorf("the host's directory holds\n%s\nand held\n%s", after, before)
	}
}

// again launches and starts a container in a directory that there is already.
func (b *bench) again(s *vm.Spec) *Machine {
	b.t.Helper()
	m, err := b.engine.Launch(b.t.Context(), s)
	if err != nil {
		b.t.Fatal(err)
	}
	b.endAfter(m)
	if err := m.Start(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	return m.(*Machine)
}

// listed is a directory with all that a stranger could have changed.
func listed(t *testing.T, dir string) (text string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			st := info.Sys().(*syscall.Stat_t)
			text += fmt.Sprintln(path, info.Mode(), st.Uid, st.Gid, info.Size(), info.ModTime())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func removeLinks(t *testing.T, root string) {
	t.Helper()
	for _, pattern := range []string{"*", "tmp/*"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSymlink != 0 {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		}
	}
}
