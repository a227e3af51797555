package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func (g *group) file(n int, name string) string {
	return filepath.Join(g.daemons[n].Base, "files", name)
}

func (g *group) put(n int, name string, content []byte) {
	g.t.Helper()
	if err := os.WriteFile(g.file(n, name), content, 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// awaitGone runs a command again and again until its answer lacks a text.
func (g *group) awaitGone(n int, gone, line string) {
	g.t.Helper()
	var got string
	for end := time.Now().Add(commandTime); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if got = g.run(n, "%s", line); !strings.Contains(got, gone) {
			return
		}
	}
	g.t.Fatalf("%s: %s shows %q all the time:\n%s", g.daemons[n].Host.Name, line, gone, got)
}

// Files come from the hosts that have them, by `file get` and by `file:`.
func TestShare(t *testing.T) {
	g := newGroup(t, 3)
	content := make([]byte, 21<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	g.put(0, "big", content)
	g.do(1, "file get big")
	g.await(1, fmt.Sprint(" big ", len(content), " "), "file list")
	if got, err := os.ReadFile(g.file(1, "big")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	g.want(1, "n2: !get none: file not found", "file get none")

	// The same name with other content is an error that names the hosts.
	g.put(0, "two", []byte("one"))
	g.put(1, "two", []byte("other"))
	if got := g.run(2, "file get two"); !strings.Contains(got, "different content under one name: n") || !strings.Contains(got, "n1 has 3 bytes") {
		t.Errorf("got %s", got)
	}
	g.do(1, "file delete two")
	g.do(2, "file get two")
	g.await(2, " two 3 ", "file list")

	// A directory comes whole: with links that lead out, empty directories, set-id bits.
	root := g.file(0, "root")
	if out, err := exec.Command(program, "guest", "rootfs", "-o", root).CombinedOutput(); err != nil {
		t.Fatalf("guest rootfs: %v\n%s", err, out)
	}
	if err := errors.Join(os.Mkdir(root+"/empty", 0o710), os.Symlink("/etc/passwd", root+"/passwd"), os.Chmod(root+"/init", 0o755|fs.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	g.do(1, "file get root")
	g.awaitGone(1, " root ", "file status")
	if got, err := exec.Command("diff", "-r", "--no-dereference", root, g.file(1, "root")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, got)
	}
	for name, mode := range map[string]fs.FileMode{"empty": 0o710 | fs.ModeDir, "init": 0o755 | fs.ModeSetuid, "passwd": 0o777 | fs.ModeSymlink} {
		if st, err := os.Lstat(g.file(1, "root/"+name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v, want %v", name, st, err, mode)
		}
	}
	g.await(1, " root/passwd 11 ", "file list root")
	g.do(1, "file delete root")
	g.want(1, "n2: !get root/passwd: file not found", "file get root/passwd") // what it leads to is not ours to give

	// A launch fetches what its host lacks, and is refused where its host has
	// something else under the name; another time alone is nothing.
	g.do(0, "namespace lab", "ns add-hosts n2", "ns del-hosts n[1,3]", "vm config filesystem "+root, "vm config memory 64", "vm launch container first")
	now := time.Now()
	if err := os.Chtimes(g.file(1, "root/init"), now, now); err != nil {
		t.Fatal(err)
	}
	g.do(0, "vm launch container second")
	if err := os.WriteFile(g.file(1, "root/more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := g.run(0, "vm launch container third"); !strings.Contains(got, "different content under one name: n2 has root/more, which n1 has not") || !strings.Contains(got, "`file delete`") {
		t.Errorf("got %s", got)
	}
	g.want(0, "n2: first\nn2: second", ".columns name vm info")
	if err := os.Remove(g.file(1, "root/more")); err != nil {
		t.Fatal(err)
	}
	g.do(0, "vm launch container third", "clear namespace lab")

	// An image brings what it stands on.
	for _, args := range [][]string{{"create", "-f", "qcow2", g.file(0, "base.qcow2"), "8M"},
		{"create", "-f", "qcow2", "-F", "qcow2", "-b", "base.qcow2", g.file(0, "over.qcow2")}} {
		if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	g.do(2, "vm config disk file:over.qcow2")
	g.want(2, "n3: ["+g.file(2, "over.qcow2")+"]", "vm config disk")
	g.await(2, " base.qcow2 ", "file list")
	g.want(2, "n3: !get none.qcow2: file not found", "vm config disk file:none.qcow2")
}
