package record

import (
	"bytes"
	"image"
	"image/color"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"minimega/pkg/vnc"
)

func noise(m *image.RGBA) {
	for i := range m.Pix {
		m.Pix[i] = uint8(rand.Uint32()) | uint8(i&3/3*255)
	}
}

func TestFBBusyScreen(t *testing.T) {
	vm := newMachine(t, "busy", 320, 240)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "busy.fb")
	if err := m.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	var want []byte
	for range 40 {
		vm.Screen.Draw(func(img *image.RGBA) { noise(img); want = bytes.Clone(img.Pix) })
		pause(t, 25*time.Millisecond)
	}
	vm.recorded(t, m)
	if l := m.List(); len(l) != 1 || l[0].Type != TypeFB || l[0].Filename != path || l[0].Items < 5 {
		t.Errorf("list %+v", l)
	}
	if err := m.Stop("fb", "ns", "busy"); err != nil {
		t.Fatal(err)
	}
	updates, end, last := decode(t, path)
	if most := int(end/fbPeriod) + 2; updates < 5 || updates > most || end < time.Second || !bytes.Equal(last.Pix, want) {
		t.Errorf("%d updates, end %v, last frame right: %t", updates, end, bytes.Equal(last.Pix, want))
	}
}

func TestFBIdleScreenIsSmall(t *testing.T) {
	vm := newMachine(t, "idle", 1024, 768)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "idle.fb")
	if err := m.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	pause(t, time.Second)
	eventually(t, func() bool { return m.List()[0].Items > 0 })
	if err := m.Stop("fb", "ns", "idle"); err != nil {
		t.Fatal(err)
	}
	updates, end, _ := decode(t, path)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if updates != 1 || end < time.Second || st.Size() > 64<<10 {
		t.Errorf("%d updates, end %v, %d bytes", updates, end, st.Size())
	}
}

func TestFBFollowsResize(t *testing.T) {
	vm := newMachine(t, "resize", 100, 100)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "r.fb")
	if err := m.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		pause(t, 150*time.Millisecond)
		img := image.NewRGBA(image.Rect(0, 0, 60+40*i, 200-20*i))
		noise(img)
		if err := vm.Screen.Show(img); err != nil {
			t.Fatal(err)
		}
	}
	vm.recorded(t, m)
	if err := m.Stop("fb", "ns", "resize"); err != nil {
		t.Fatal(err)
	}
	_, _, last := decode(t, path)
	if last.Rect != image.Rect(0, 0, 260, 100) {
		t.Errorf("last size %v", last.Rect)
	}
}

func TestFBKilledDaemonLeavesFrames(t *testing.T) {
	vm := newMachine(t, "cut", 64, 64)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "cut.fb")
	if err := m.RecordFB(t.Context(), vm.Target, path); err != nil {
		t.Fatal(err)
	}
	vm.Screen.Draw(func(img *image.RGBA) { img.SetRGBA(5, 5, color.RGBA{9, 8, 7, 255}) })
	var seen []byte
	eventually(t, func() bool { // what is on disk while it still records
		data, err := os.ReadFile(path)
		seen = data
		if err != nil {
			return false
		}
		r, err := vnc.NewFBReader(bytes.NewReader(data))
		if err != nil {
			return false
		}
		hit := false
		for f, err := range r.All() {
			if err != nil {
				break
			}
			hit = f.Image.Bounds().Dx() == 64 && f.Image.RGBAAt(5, 5) == (color.RGBA{9, 8, 7, 255})
		}
		return hit
	})
	if len(seen) == 0 {
		t.Error("nothing on disk")
	}
	m.ForgetVM(vm.ID)
	decode(t, path)
	if l := m.List(); len(l) != 0 {
		t.Errorf("still listed: %v", l)
	}
}

func TestFBVMGoneCompletesFile(t *testing.T) {
	vm := newMachine(t, "gone", 640, 480)
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "gone.fb")
	proxy := newQEMU(t, "-boot", "menu=on,splash-time=30000")
	if err := m.RecordFB(t.Context(), proxy, path); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return m.List()[0].Items > 0 })
	// The first update may say no more than how large the screen is.
	for end := time.Now().Add(5 * time.Second); m.List()[0].Items < 2 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if err := m.RecordFB(t.Context(), proxy, path+"2"); err == nil || err.Error() != "fb recording for qemu already running" {
		t.Errorf("second recording: %v", err)
	}
	if err := m.RecordFB(t.Context(), vm.Target, path); err == nil {
		t.Error("two recordings write one file")
	}
	m.ForgetVM(proxy.ID)
	if n, _, _ := decode(t, path); n == 0 {
		t.Error("no frame of the firmware's screen")
	}
}

func TestFBOfQEMUWhileTyping(t *testing.T) {
	target := newQEMU(t, "-boot", "menu=on,splash-time=60000")
	m := newManager(t)
	path := filepath.Join(t.TempDir(), "qemu.fb")
	if err := m.RecordFB(t.Context(), target, path); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return lit(screen(t, target)) > cursor })
	before := m.List()[0].Items
	c := client(t, target.Proxy)
	for range 10 {
		for _, k := range vnc.TypeKeys("\x1b1") {
			if err := c.Key(k); err != nil {
				t.Fatal(err)
			}
		}
		pause(t, 100*time.Millisecond)
	}
	eventually(t, func() bool { return m.List()[0].Items > max(before, 1) }) // what came of it
	if err := m.Stop("fb", "ns", "qemu"); err != nil {
		t.Fatal(err)
	}
	n, end, last := decode(t, path)
	if n < 2 || end < time.Second || last.Rect.Dx() < 640 {
		t.Errorf("%d updates, end %v, size %v", n, end, last.Rect)
	}
	if bytes.Count(last.Pix, []byte{0, 0, 0, 255}) == len(last.Pix)/4 {
		t.Error("the last frame is black")
	}
}
