package vlan

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"minimega/internal/errs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func resolve(t *testing.T, r *Registry, ns, spec string) int {
	t.Helper()
	n, _, err := r.Resolve(ns, spec)
	if err != nil {
		t.Fatalf("Resolve(%q, %q): %v", ns, spec, err)
	}
	return n
}

func wantErr(t *testing.T, err error, kind errs.Kind, text string) {
	t.Helper()
	if err == nil || !errors.Is(err, kind) || !strings.HasPrefix(err.Error(), text) {
		t.Fatalf("got %v (%v), want %s: %s", err, errs.KindOf(err), kind, text)
	}
}

func TestResolve(t *testing.T) {
	r := New("", slog.Default())
	if n := resolve(t, r, "x", "a"); n != 101 {
		t.Fatalf("first alias got %d", n)
	}
	resolve(t, r, "x", "102") // used by number: allocation must pass it by
	if n := resolve(t, r, "x", "b"); n != 103 {
		t.Fatalf("second alias got %d", n)
	}
	if n := resolve(t, r, "y", "x//a"); n != 101 {
		t.Fatalf("x//a got %d", n)
	}
	if n := resolve(t, r, "y", "a"); n != 104 {
		t.Fatalf("a of y got %d", n)
	}
	if n := resolve(t, r, "x", "a"); n != 101 {
		t.Fatalf("a again got %d", n)
	}
	for vlan, want := range map[int]string{101: "a (101)", 104: "y//a (104)", 200: "200", -1: "disconnected"} {
		if got := r.Print("x", vlan); got != want {
			t.Errorf("Print(%d) = %q, want %q", vlan, got, want)
		}
	}
	if diff := cmp.Diff([]Alias{{"a", 101}, {"b", 103}}, r.List("x")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]int{102}, r.Blacklisted()); diff != "" {
		t.Error(diff)
	}
}

func TestResolveErrors(t *testing.T) {
	r := New("", slog.Default())
	for spec, text := range map[string]string{
		"": "VLAN must be non-empty string", "-1": "invalid VLAN (0 <= vlan < 4096)",
		"4096": "invalid VLAN (0 <= vlan < 4096)", "99999999999999999999": "invalid VLAN (0 <= vlan < 4096)",
		"a\nb": "malformed VLAN alias", "a//b//c": "malformed VLAN alias", " a": "malformed VLAN alias",
		"//a": "malformed VLAN alias", "x//": "VLAN must be non-empty string",
		strings.Repeat("a", 256): "malformed VLAN alias",
	} {
		_, _, err := r.Resolve("x", spec)
		wantErr(t, err, errs.Invalid, text)
	}
	if got := r.List("x"); got != nil {
		t.Errorf("failed Resolve left %v", got)
	}
}

func TestAddAndRanges(t *testing.T) {
	r := New("", slog.Default())
	if err := r.Add("x", "a", 300); err != nil {
		t.Fatal(err)
	}
	wantErr(t, r.Add("x", "a", 301), errs.Exists, "alias already in use")
	wantErr(t, r.Add("y", "b", 300), errs.Exists, "vlan already in use")
	wantErr(t, r.Add("x", "c", 4096), errs.Invalid, "invalid VLAN (0 <= vlan < 4096)")
	wantErr(t, r.Add("x", "12", 12), errs.Invalid, "a number cannot be an alias")
	wantErr(t, r.SetRange("x", 5, 5), errs.Invalid, "expected min > max")
	wantErr(t, r.SetRange("x", 5, 4097), errs.Invalid, "invalid VLAN")
	if err := r.SetRange("x", 300, 303); err != nil {
		t.Fatal(err)
	}
	wantErr(t, r.SetRange("y", 302, 310), errs.Exists, "range overlaps with another namespace: x")
	if diff := cmp.Diff(Range{300, 303, 301, true}, r.Range("x")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Range{101, 4096, 101, false}, r.Range("y")); diff != "" {
		t.Error(diff)
	}
	resolve(t, r, "x", "b")
	resolve(t, r, "x", "c")
	_, _, err := r.Resolve("x", "d")
	wantErr(t, err, errs.Resource, "out of VLANs")

	// Those that share the default range keep out of x's.
	if err := r.SetRange(Default, 299, 400); err != nil {
		t.Fatal(err)
	}
	if got := []int{resolve(t, r, "y", "1a"), resolve(t, r, "y", "1b")}; got[0] != 299 || got[1] != 303 {
		t.Errorf("default range gave %v", got)
	}
	// A freed number is used again once the range has been gone through.
	r.Clear("x", "b")
	if n := resolve(t, r, "x", "e"); n != 301 {
		t.Errorf("freed number was not used, got %d", n)
	}
	r.DeleteNamespace("x")
	if rg := r.Range("x"); rg.Own || len(r.List("x")) != 0 {
		t.Errorf("x is still there: %+v %v", rg, r.List("x"))
	}
	r.Clear("y", "all")
	if len(r.List("y")) != 0 || len(r.Blacklisted()) != 0 || r.Range("y").Min != 299 {
		t.Error("all did not reset, or forgot the range of the flag")
	}
}

func TestParseRange(t *testing.T) {
	if min, max, err := ParseRange("101-4096"); err != nil || min != 101 || max != 4096 {
		t.Fatal(min, max, err)
	}
	for _, bad := range []string{"", "1", "5-5", "6-5", "0-4097", "-1-5", "a-b", "1-2-3"} {
		if _, _, err := ParseRange(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vlans")
	r := New(path, slog.Default())
	resolve(t, r, "minimega", "my_network")
	resolve(t, r, "minimega", "b")
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	const want = "Alias                VLAN\nminimega//my_network 101\nminimega//b          102\n"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	resolve(t, r, "x", "with blanks inside")
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	again := New("", slog.Default())
	if err := again.Load(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if got := again.Text(); !bytes.Equal(got, text) {
		t.Fatalf("read back as %q", got)
	}
	if n := resolve(t, again, "x", "new"); n != 104 {
		t.Errorf("allocated %d after Load", n)
	}
}

func TestLoadIsAllOrNothing(t *testing.T) {
	r := New("", slog.Default())
	for _, bad := range []string{
		"Alias VLAN\nx//a 5\nx//b 5\n", "Alias VLAN\nx//a 5\nx//b\n", "Alias VLAN\nx//a 5\nx//b 4096\n",
		"Alias VLAN\nx//a 5\nb 6\n", "Alias VLAN\nx//a 5\nx//7 6\n",
	} {
		err := r.Load(strings.NewReader(bad))
		if err == nil || !strings.Contains(err.Error(), "line 3") {
			t.Errorf("%q: %v", bad, err)
		}
		if len(r.List("x")) != 0 {
			t.Fatalf("%q left %v", bad, r.List("x"))
		}
	}
}

func TestConcurrent(t *testing.T) {
	r := New(filepath.Join(t.TempDir(), "vlans"), slog.Default())
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if _, _, err := r.Resolve(fmt.Sprintf("ns%d", w%4), fmt.Sprintf("a%d", i)); err != nil {
					t.Error(err)
				}
				r.Print("ns0", 101+i)
			}
		})
	}
	wg.Wait()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for w := range 4 {
		for _, a := range r.List(fmt.Sprintf("ns%d", w)) {
			if seen[a.VLAN] {
				t.Fatalf("VLAN %d given twice", a.VLAN)
			}
			seen[a.VLAN] = true
		}
	}
	if len(seen) != 400 {
		t.Fatalf("%d VLANs", len(seen))
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("Alias VLAN\nx//a 5\ny//b c   6\n"))
	f.Add([]byte("Alias VLAN\n\n// 1\nx//\t2\nx//é 3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := New("", slog.Default())
		if r.Load(bytes.NewReader(data)) != nil {
			return
		}
		text := r.Text()
		again := New("", slog.Default())
		if err := again.Load(bytes.NewReader(text)); err != nil {
			t.Fatalf("%v in own text %q", err, text)
		}
		if got := again.Text(); !bytes.Equal(got, text) {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"a", "5", "x//a", "-1", "", "a b", "0x10", "\xff", "\x83//0", "x//5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		r := New("", slog.Default())
		n, _, err := r.Resolve("x", spec)
		if err != nil {
			return
		}
		if n < 0 || n >= Max {
			t.Fatalf("%q gave %d", spec, n)
		}
		again := New("", slog.Default())
		if err := again.Load(bytes.NewReader(r.Text())); err != nil {
			t.Fatalf("%q cannot be read back: %v", spec, err)
		}
		if m, _, err := again.Resolve("x", spec); err != nil || m != n {
			t.Fatalf("%q was %d, read back %d, %v", spec, n, m, err)
		}
	})
}
