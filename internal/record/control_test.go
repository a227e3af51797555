package record

import (
	"errors"
	"fmt"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

func press(name string, down bool) vnc.Input {
	k, err := vnc.ParseKeysym(name)
	if err != nil {
		panic(err)
	}
	return vnc.KeyEvent{Down: down, Keysym: k}
}

// expect waits until the machine has got exactly these inputs.
func (m *machine) expect(t *testing.T, want ...vnc.Input) {
	t.Helper()
	eventually(t, func() bool { in, _ := m.seen(); return len(in) >= len(want) })
	if in, _ := m.seen(); fmt.Sprint(in) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", in, want)
	}
}

func TestPauseStepContinue(t *testing.T) {
	vm := newMachine(t, "pause", 100, 100)
	m := newManager(t)
	path := write(t, "0:KeyEvent,true,a\n1h:KeyEvent,false,a\n2h:KeyEvent,true,b\n500ms:KeyEvent,true,c\n1h:KeyEvent,true,d\n")
	if err := m.Play(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	a, noA, b, c := press("a", true), press("a", false), press("b", true), press("c", true)
	vm.expect(t, a)
	if err := m.Continue("ns", "pause"); err == nil || err.Error() != "playback not playable" {
		t.Errorf("continue of a running one: %v", err)
	}
	step := func(want string) {
		t.Helper()
		if got, err := m.NextStep("ns", "pause"); err != nil || got != want {
			t.Errorf("next step %q, %v; want %q", got, err, want)
		}
	}
	step("3600000000000:KeyEvent,false,a")
	if err := m.Step(t.Context(), "ns", "pause"); err != nil { // not paused: the rest of the wait is left out
		t.Fatal(err)
	}
	vm.expect(t, a, noA)
	step("7200000000000:KeyEvent,true,b")
	if err := m.Pause("ns", "pause"); err != nil {
		t.Fatal(err)
	}
	if err := m.Pause("ns", "pause"); err == nil || err.Error() != "playback not pauseable" {
		t.Errorf("second pause: %v", err)
	}
	if l := m.List(); len(l) != 1 || l[0].Time != "PAUSED" {
		t.Errorf("list %+v", l)
	}
	if err := m.Step(t.Context(), "ns", "pause"); err != nil {
		t.Fatal(err)
	}
	vm.expect(t, a, noA, b)
	pause(t, 700*time.Millisecond) // paused still: c does not come
	vm.expect(t, a, noA, b)
	start := time.Now()
	if err := m.Continue("ns", "pause"); err != nil {
		t.Fatal(err)
	}
	vm.expect(t, a, noA, b, c)
	if d := time.Since(start); d < 400*time.Millisecond {
		t.Errorf("the time that was left, 500 ms, took %v", d)
	}
	remains(t, m, time.Hour)
	if err := m.StopPlay("ns", "pause"); err != nil {
		t.Fatal(err)
	}
	vm.expect(t, a, noA, b, c, press("b", false), press("c", false))
}

func TestInject(t *testing.T) {
	vm := newMachine(t, "inject", 100, 100)
	m := newManager(t)
	dir := writeFiles(t, map[string]string{
		"main.kb": "1h:LoadFile,sub.kb\n1h:KeyEvent,true,y\n", "sub.kb": "0:KeyEvent,true,x\n",
		"in.kb": "0:KeyEvent,true,1\n0:LoadFile,in2.kb\n0:KeyEvent,true,3\n", "in2.kb": "0:KeyEvent,true,2\n",
	})
	if err := m.Play(t.Context(), vm.Target, dir+"/main.kb"); err != nil {
		t.Fatal(err)
	}
	in := func(event string) {
		t.Helper()
		if err := m.Inject(t.Context(), "ns", "inject", event, dir); err != nil {
			t.Fatal(err)
		}
	}
	in("LoadFile,in.kb")
	want := []vnc.Input{press("1", true), press("2", true), press("3", true)}
	vm.expect(t, want...)
	if s, err := m.NextStep("ns", "inject"); err != nil || !strings.HasSuffix(s, ":LoadFile,sub.kb") {
		t.Errorf("next step %q, %v", s, err)
	}
	remains(t, m, 2*time.Hour)
	if err := m.Pause("ns", "inject"); err != nil {
		t.Fatal(err)
	}
	in("PointerEvent,1,5,6") // at once
	want = append(want, vnc.PointerEvent{Buttons: 1, X: 5, Y: 6})
	vm.expect(t, want...)
	in("LoadFile,in2.kb")
	in("LoadFile,sub.kb") // after the first
	pause(t, 100*time.Millisecond)
	vm.expect(t, want...)
	for range 6 { // the injected LoadFiles and their keys, then that of the file and its key
		if err := m.Step(t.Context(), "ns", "inject"); err != nil {
			t.Fatal(err)
		}
	}
	want = append(want, press("2", true), press("x", true), press("x", true))
	vm.expect(t, want...)
	if err := m.Step(t.Context(), "ns", "inject"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(m.List()) == 0 })
	got, _ := vm.seen()
	if len(got) != len(want)+1+6 { // y; then five keys and a button are released
		t.Errorf("in all %v", got)
	}
}

func TestInjectRefuses(t *testing.T) {
	vm := newMachine(t, "refuse", 100, 100)
	m := newManager(t)
	dir := writeFiles(t, map[string]string{"main.kb": "1h:KeyEvent,true,y\n", "loop.kb": "0:LoadFile,loop.kb\n"})
	if err := m.Inject(t.Context(), "ns", "refuse", "KeyEvent,true,a", dir); err == nil || err.Error() != "kb playback not found for refuse" {
		t.Errorf("without a playback: %v", err)
	}
	if err := m.Play(t.Context(), vm.Target, dir+"/main.kb"); err != nil {
		t.Fatal(err)
	}
	for event, kind := range map[string]errs.Kind{
		"": errs.Invalid, "0:KeyEvent,true,a": errs.Invalid, "KeyEvent,true,nokey": errs.Invalid, "PointerEvent,1,2": errs.Invalid,
		"LoadFile,none.kb": errs.NotFound, "LoadFile,loop.kb": errs.Invalid, "WaitForIt,1s,none.png": errs.NotFound,
	} {
		if err := m.Inject(t.Context(), "ns", "refuse", event, dir); !errors.Is(err, kind) {
			t.Errorf("%q: %v", event, err)
		}
	}
	for what, do := range map[string]func(ns, name string) error{
		"stop": m.StopPlay, "pause": m.Pause, "continue": m.Continue,
		"step":    func(ns, name string) error { return m.Step(t.Context(), ns, name) },
		"getstep": func(ns, name string) error { _, err := m.NextStep(ns, name); return err },
	} {
		if err := do("ns", "other"); err == nil || err.Error() != "kb playback not found for other" || !errors.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if in, _ := vm.seen(); len(in) != 0 {
		t.Errorf("sent %v", in)
	}
}

// TestStepPastPicture: a wait is left out, a click has no place to go to.
func TestStepPastPicture(t *testing.T) {
	vm := newMachine(t, "past", 200, 100)
	m := newManager(t)
	dir := writeFiles(t, map[string]string{"w.kb": "0:WaitForIt,1h,p.png\n0:KeyEvent,true,a\n0:ClickItEvent,1h,p.png\n"})
	f, err := os.Create(filepath.Join(dir, "p.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(png.Encode(f, picture()), f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := m.Play(t.Context(), vm.Target, dir+"/w.kb"); err != nil {
		t.Fatal(err)
	}
	waiting := func(what string) {
		t.Helper()
		eventually(t, func() bool {
			s, err := m.NextStep("ns", "past")
			return err == nil && s == "0:"+what+",1h0m0s,p.png"
		})
	}
	waiting("WaitForIt")
	if err := m.Step(t.Context(), "ns", "past"); err != nil {
		t.Fatal(err)
	}
	vm.expect(t, press("a", true))
	waiting("ClickItEvent")
	eventually(t, func() bool {
		err := m.Step(t.Context(), "ns", "past")
		return err != nil && err.Error() == "playback not stepable"
	})
	if err := m.StopPlay("ns", "past"); err != nil {
		t.Fatal(err)
	}
	vm.expect(t, press("a", true), press("a", false))
}

// TestSteerFromAllSides plays while many steer: nothing hangs, nothing is lost
// or played twice.
func TestSteerFromAllSides(t *testing.T) {
	vm := newMachine(t, "many", 100, 100)
	m := newManager(t)
	const n = 300
	dir := writeFiles(t, map[string]string{"m.kb": strings.Repeat("1ms:PointerEvent,0,1,1\n", n), "in.kb": "1ms:PointerEvent,0,2,2\n"})
	if err := m.Play(t.Context(), vm.Target, dir+"/m.kb"); err != nil {
		t.Fatal(err)
	}
	injected := 0
	for len(m.List()) > 0 {
		if injected < 100 && m.Inject(t.Context(), "ns", "many", "LoadFile,in.kb", dir) == nil {
			injected++
		}
		for _, do := range []func(ns, name string) error{m.Pause, func(ns, name string) error { return m.Step(t.Context(), ns, name) }, m.Continue} {
			if err := do("ns", "many"); err != nil && !errors.Is(err, errs.NotFound) {
				t.Fatal(err)
			}
		}
	}
	in, _ := vm.seen()
	counts := map[uint16]int{}
	for _, i := range in {
		counts[i.(vnc.PointerEvent).X]++
	}
	if counts[1] != n || counts[2] != injected || injected == 0 {
		t.Errorf("%d of %d and %d of %d events", counts[1], n, counts[2], injected)
	}
}
