package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

func TestKBRecordAndReplay(t *testing.T) {
	vm := newMachine(t, "kb", 100, 100)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "a.kb")
	if err := m.RecordKB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	if err := m.RecordKB(t.Context(), vm.Target, path+"2"); err == nil || err.Error() != "kb recording for kb already running" {
		t.Errorf("second recording: %v", err)
	}
	c := client(t, vm.Proxy)
	for i := range 10 {
		if err := errors.Join(c.Key(vnc.KeyEvent{Down: i%2 == 0, Keysym: 'a'}), c.Pointer(vnc.PointerEvent{Buttons: uint8(i), X: uint16(i), Y: 7})); err != nil {
			t.Fatal(err)
		}
		pause(t, 40*time.Millisecond)
	}
	eventually(t, func() bool { in, _ := vm.seen(); return len(in) == 20 })
	if err := m.Stop("kb", "ns", "kb"); err != nil {
		t.Fatal(err)
	}
	in, when := vm.seen()
	start := time.Now()
	twin := newMachine(t, "twin", 100, 100)
	if err := m.Play(t.Context(), twin.Target, path); err != nil {
		t.Fatal(err)
	}
	if err := m.Play(t.Context(), twin.Target, path); err == nil || err.Error() != "kb playback twin already playing" {
		t.Errorf("second playback: %v", err)
	}
	if l := m.List(); len(l) != 1 || l[0].Type != TypePlayback || !strings.HasSuffix(l[0].Time, "s remaining") {
		t.Errorf("list %+v", l)
	}
	eventually(t, func() bool { return len(m.List()) == 0 })
	again, then := twin.seen()
	again = again[:min(len(again), 20)] // then the buttons are let go
	if fmt.Sprint(again) != fmt.Sprint(in) {
		t.Fatalf("replayed %v\nrecorded %v", again, in)
	}
	var off []time.Duration // per event, so that a stall of the machine counts once
	for i := range in[1:] {
		off = append(off, (then[i+1].Sub(then[i]) - when[i+1].Sub(when[i])).Abs())
	}
	slices.Sort(off)
	t.Log("differences in time:", off) // a busy machine adds to them
	if took := then[19].Sub(start); took < 9*40*time.Millisecond || took > time.Minute {
		t.Errorf("replayed within %v", took)
	}
}

func TestPlayReleasesWhatItHolds(t *testing.T) {
	vm := newMachine(t, "held", 100, 100)
	m := newManager(t)
	path := write(t, "0:KeyEvent,true,Control_L\n0:PointerEvent,1,3,4\n1h:KeyEvent,false,Control_L\n")
	if err := m.Play(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { in, _ := vm.seen(); return len(in) == 2 })
	remains(t, m, time.Hour)
	if err := m.StopPlay("ns", "held"); err != nil {
		t.Fatal(err)
	}
	in, _ := vm.seen()
	if len(in) != 4 || in[2] != (vnc.KeyEvent{Down: false, Keysym: 0xffe3}) || in[3] != (vnc.PointerEvent{X: 3, Y: 4}) {
		t.Errorf("after stop: %v", in)
	}
	if err := m.StopPlay("ns", "held"); err == nil || err.Error() != "kb playback not found for held" {
		t.Errorf("second stop: %v", err)
	}
}

func TestType(t *testing.T) {
	vm := newMachine(t, "type", 100, 100)
	m := newManager(t)
	if err := m.Type(t.Context(), vm.Target, "Hi!\n"); err != nil {
		t.Fatal(err)
	}
	in, _ := vm.seen()
	var got []string
	for _, e := range in {
		got = append(got, vnc.FormatKBEvent(e.(vnc.KBEvent)))
	}
	want := strings.Fields(`KeyEvent,true,Shift_L KeyEvent,true,H KeyEvent,false,H KeyEvent,false,Shift_L
		KeyEvent,true,i KeyEvent,false,i
		KeyEvent,true,Shift_L KeyEvent,true,exclam KeyEvent,false,exclam KeyEvent,false,Shift_L
		KeyEvent,true,Return KeyEvent,false,Return`)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("typed %v", got)
	}
	if err := m.Type(t.Context(), vm.Target, "naïve"); !errors.Is(err, errs.Invalid) {
		t.Errorf("typing ï: %v", err)
	}
	if in, _ := vm.seen(); len(in) != len(want) {
		t.Error("keys were typed before the refusal")
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.kb")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
