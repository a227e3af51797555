package vlan

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestAdopt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vlans")
	log := slog.New(slog.DiscardHandler)
	r := New(path, log)
	for _, step := range []func() error{
		func() error { return r.SetRange(Default, 200, 300) },
		func() error { return r.SetRange("lab", 500, 600) },
		func() error { _, _, err := r.Resolve("lab", "a"); return err },
		func() error { _, _, err := r.Resolve(Default, "b"); return err },
		func() error { return r.Add("lab", "with blank", 7) },
		func() error { return r.Blacklist(201) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	// The registry is not closed: its process was killed.
	later := New(path, log)
	if adopted, err := later.Adopt(); !adopted || err != nil {
		t.Fatal(adopted, err)
	}
	for _, ns := range []string{Default, "lab", "other"} {
		if got, want := later.List(ns), r.List(ns); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", ns, got, want)
		}
		if got, want := later.Range(ns), r.Range(ns); got != want {
			t.Errorf("%s: range %v, want %v", ns, got, want)
		}
	}
	if got := later.Blacklisted(); !reflect.DeepEqual(got, []int{201}) {
		t.Errorf("blacklist %v", got)
	}
	if n, _, err := later.Resolve(Default, "c"); n != 202 || err != nil {
		t.Errorf("next is %d, %v", n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := later.Close(); err != nil {
		t.Fatal(err)
	}
	// One that ended well has left nothing to adopt.
	last := New(path, log)
	defer last.Close()
	if adopted, err := last.Adopt(); adopted || err != nil {
		t.Error(adopted, err)
	}
}

// What is dropped is said, and gone for the next one. A range is only said if it
// was not the usual one.
func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vlans")
	log := slog.New(slog.DiscardHandler)
	r := New(path, log)
	for _, step := range []func() error{
		func() error { return r.SetRange(Default, 101, Max) },
		func() error { return r.SetRange("lab", 500, 600) },
		func() error { _, _, err := r.Resolve("lab", "a"); return err },
		func() error { return r.Add(Default, "with blank", 7) },
		func() error { return r.Blacklist(201) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	later := New(path, log)
	want := []string{"VLAN alias with blank (7) of namespace minimega", "VLAN alias a (500) of namespace lab",
		"VLAN range 500-600 of namespace lab", "reservation of VLAN 201"}
	if got := later.Discard(); !reflect.DeepEqual(got, want) {
		t.Errorf("dropped %q", got)
	}
	if err := os.WriteFile(path+rulesSuffix, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	last := New(path, log)
	if got := last.Discard(); got != nil {
		t.Errorf("again, and of a broken file: %q", got)
	}
	if adopted, err := last.Adopt(); !adopted || err != nil {
		t.Errorf("the broken file is left: %v, %v", adopted, err)
	}
	for _, r := range []*Registry{last, later, r} {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Files that are broken are refused in part or in whole, and harm nothing.
func TestAdoptBroken(t *testing.T) {
	for _, text := range []string{"", "{", `{"Ranges": {"x": {"Min": 5, "Max": 1}}}`, `{"Ranges": {"x": {"Min": 5, "Max": 9999}}}`, "[]"} {
		path := filepath.Join(t.TempDir(), "vlans")
		if err := os.WriteFile(path+rulesSuffix, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := New(path, slog.New(slog.DiscardHandler))
		if _, err := r.Adopt(); err == nil {
			t.Errorf("%q was taken", text)
		}
		if n, _, err := r.Resolve(Default, "a"); n != 101 || err != nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}
