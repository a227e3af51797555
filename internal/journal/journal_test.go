package journal

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	j := Open(dir)
	var entries []*Entry
	for _, v := range []string{"a", "b", "c"} {
		e, err := j.Add(v)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	if err := entries[1].Remove(); err != nil {
		t.Fatal(err)
	}
	for _, junk := range []string{".3.json.123", "x.txt"} {
		if err := os.WriteFile(filepath.Join(dir, junk), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	later := Open(dir)
	found, err := later.Entries()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range found {
		var s string
		if err := e.Read(&s); err != nil {
			t.Fatal(err)
		}
		got = append(got, s)
	}
	if strings.Join(got, "") != "ac" {
		t.Fatalf("found %v", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, ".3.json.123")); err == nil {
		t.Error("a temporary file was left")
	}
	fresh, err := later.Add("d")
	if err != nil {
		t.Fatal(err)
	}
	if fresh.number() <= found[1].number() {
		t.Errorf("%s does not come after those of before", fresh.path)
	}
	if err := fresh.Replace("e"); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(fresh.path); err != nil || string(text) != "\"e\"\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := later.Add(strings.Repeat("x", maxEntry)); err == nil {
		t.Error("what could not be read again is kept")
	}
	for _, e := range append(found, fresh) {
		if err := e.Remove(); err != nil {
			t.Error(err)
		}
	}
}

// What is beside an entry goes with it, at the latest when nobody knows why it is there.
func TestBeside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	j := Open(dir)
	for _, end := range []func(*Entry) error{(*Entry).Remove, func(e *Entry) error {
		if _, err := j.Entries(); err != nil {
			return err
		}
		if _, err := os.Lstat(e.Beside()); err != nil {
			return err
		}
		if err := os.Remove(e.Path()); err != nil {
			return err
		}
		_, err := j.Entries()
		return err
	}} {
		e, err := j.Add("a")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(e.Beside(), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := end(e); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// Broken files are named and do not hide the others.
func TestBroken(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{"0.json": 10, "1.json": maxEntry + 1} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Open(dir).Entries()
	if err == nil || !strings.Contains(err.Error(), "1.json") || len(found) != 1 {
		t.Fatalf("%d found, %v", len(found), err)
	}
	var v any
	if err := found[0].Read(&v); err == nil || !strings.Contains(err.Error(), "0.json") {
		t.Errorf("read: %v", err)
	}
}

func TestNil(t *testing.T) {
	var j *Journal
	e, err := j.Add(1)
	if err != nil || e != nil || e.Remove() != nil || e.Path() != "" || e.Beside() != "" {
		t.Error("a nil journal keeps something")
	}
	if l, err := j.Entries(); l != nil || err != nil {
		t.Error("a nil journal has entries")
	}
}

// The directory goes with the last entry, while others come.
func TestAddWhileRemoving(t *testing.T) {
	j := Open(filepath.Join(t.TempDir(), "j"))
	var both sync.WaitGroup
	for range 4 {
		both.Go(func() {
			for range 500 {
				e, err := j.Add("x")
				if err == nil {
					err = e.Remove()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	both.Wait()
}
