package tests

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
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
