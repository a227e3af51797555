package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHistory(t *testing.T) {
	c := newClient(t, History())
	c.expect("history", "")
	c.session.Shared.Remember("one")
	c.session.Shared.Remember("two # with comment")
	c.expect("history", "h1: one\ntwo # with comment")
	c.expect("clear history", "")
	c.expect("history", "")
}

func TestWriteHistory(t *testing.T) {
	c := newClient(t, History())
	c.session.Shared.Remember("one")
	c.session.Shared.Remember("two")
	dir := t.TempDir()
	path := dir + "/h.mm"
	c.expect("write "+path, "")
	if b, err := os.ReadFile(path); string(b) != "one\ntwo" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, bad := c.run("write " + dir + "/no/h"); !strings.Contains(bad, "no such file or directory") {
		t.Errorf("got %q", bad)
	}
	if _, bad := c.run("write " + dir); !strings.Contains(bad, "not an ordinary file") {
		t.Errorf("got %q", bad)
	}
	if _, bad := c.run("write /dev/null"); !strings.Contains(bad, "not an ordinary file") {
		t.Errorf("got %q", bad)
	}
}

// A link is replaced, what it points to stays.
func TestWriteHistoryOverLink(t *testing.T) {
	c := newClient(t, History())
	dir := t.TempDir()
	precious, link := filepath.Join(dir, "precious"), filepath.Join(dir, "link")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, link); err != nil {
		t.Fatal(err)
	}
	c.expect("write "+link, "")
	if b, err := os.ReadFile(precious); string(b) != "precious" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
}
