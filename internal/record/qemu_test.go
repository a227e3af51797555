package record

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/pkg/vnc"
)

// TestTypeIsQuick types while another client watches an idle screen, which
// QEMU looks at less and less often then: no key waits for that.
func TestTypeIsQuick(t *testing.T) {
	for _, args := range [][]string{{"-S"}, {"-boot", "menu=on,splash-time=60000"}} {
		target := newQEMU(t, args...)
		m := newManager(t)
		if err := m.RecordFB(t.Context(), target, t.TempDir()+"/x.fb"); err != nil {
			t.Fatal(err)
		}
		pause(t, 2*time.Second)
		start := time.Now()
		for _, key := range "hello, again and again" {
			if err := m.Type(t.Context(), target, string(key)); err != nil {
				t.Fatal(err)
			}
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%v: typing took %v", args, d)
		}
	}
}

// TestPlayReachesFirmware plays a key to the firmware's prompt, which then
// shows its menu.
func TestPlayReachesFirmware(t *testing.T) {
	target := newQEMU(t, "-boot", "menu=on,splash-time=60000")
	m := newManager(t)
	prompt := screen(t, target)
	eventually(t, func() bool { // the prompt stands: as good as nothing changes
		pause(t, time.Second)
		last := prompt
		prompt = screen(t, target)
		return different(last, prompt) <= cursor && lit(prompt) > cursor
	})
	if err := m.Play(t.Context(), target, write(t, "0:KeyEvent,true,Escape\n100ms:KeyEvent,false,Escape\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return different(prompt, screen(t, target)) > 4*cursor })
	eventually(t, func() bool { return len(m.List()) == 0 })
}

// cursor is how many pixels of a text screen blink.
const cursor = 9 * 16

// different counts the pixels that differ.
func different(a, b []byte) (n int) {
	if len(a) != len(b) {
		return max(len(a), len(b))
	}
	for i := 0; i < len(a); i += 4 {
		if string(a[i:i+4]) != string(b[i:i+4]) {
			n++
		}
	}
	return n
}

// lit counts the pixels that are not black.
func lit(pix []byte) (n int) {
	for i := 0; i < len(pix); i += 4 {
		if pix[i]|pix[i+1]|pix[i+2] != 0 {
			n++
		}
	}
	return n
}

func screen(t *testing.T, target Target) []byte {
	t.Helper()
	c, err := vnc.Dial(t.Context(), target.Proxy.Dial, vnc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	img, err := c.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return img.Pix
}

// TestTypeLosesNothing types more than QEMU's queue of keys holds, and counts
// the keys that reached the machine's keyboard.
func TestTypeLosesNothing(t *testing.T) {
	trace := filepath.Join(t.TempDir(), "trace")
	target := newQEMU(t, "-boot", "menu=on,splash-time=60000", "-d", "trace:input_event_key_qcode", "-D", trace)
	m := newManager(t)
	text := strings.Repeat("all work and no play ", 16)
	if err := m.Type(t.Context(), target, text); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		data, err := os.ReadFile(trace)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Count(data, []byte("input_event_key_qcode"))
	}
	want := 2 * len(text) // twice what the queue holds
	eventually(t, func() bool { return count() >= want })
	if n := count(); n != want {
		t.Errorf("%d key events reached the keyboard, want %d", n, want)
	}
}
