package record

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

func writeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestPlayLoadsFiles(t *testing.T) {
	vm := newMachine(t, "load", 10, 10)
	m := newManager(t)
	dir := writeFiles(t, map[string]string{
		"main.kb":    "0:KeyEvent,true,a\n10ms:LoadFile,sub/in.kb\nthis: is nothing\n\n# comment: here\n#: note\n0:KeyEvent,true,c\n",
		"sub/in.kb":  "0:LoadFile,../end.kb\r\n5000000:KeyEvent,true,U+20AC\r\n",
		"end.kb":     "0:PointerEvent,0,1,2",
		"unused.kb":  "",
		"only-bad":   "nonsense:\n",
		"no-newline": "1s:KeyEvent,true",
	})
	if err := m.Play(t.Context(), vm.Target, dir+"/main.kb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(m.List()) == 0 })
	in, _ := vm.seen()
	want := "[{true 97} {0 1 2} {true 16785580} {true 99} {false 97} {false 99} {false 16785580}]"
	if got := fmt.Sprint(in); got != want {
		t.Errorf("played %s", got)
	}
	for _, name := range []string{"only-bad", "no-newline"} {
		if err := m.Play(t.Context(), vm.Target, filepath.Join(dir, name)); !errors.Is(err, errs.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := m.Play(t.Context(), vm.Target, dir+"/unused.kb"); err != nil {
		t.Errorf("empty file: %v", err)
	}
}

func TestPlayRefusesBadFiles(t *testing.T) {
	vm := newMachine(t, "refuse", 10, 10)
	m := newManager(t)
	bomb := map[string]string{
		"loop.kb": "0:LoadFile,loop.kb\n", "missing.kb": "0:KeyEvent,true,a\n0:LoadFile,none.kb\n",
		"pic.kb": "0:KeyEvent,true,a\n0:WaitForIt,1s,none.png\n", "dev.kb": "0:LoadFile,/dev/zero\n",
		"long.kb": "9223372036854775807:KeyEvent,true,a\n9223372036854775807:KeyEvent,true,a\n",
		"huge.kb": strings.Repeat("x", vnc.MaxKBLine+1),
	}
	dir := writeFiles(t, bomb)
	for name, want := range map[string]string{
		"loop.kb": "load each other", "missing.kb": "line 2: cannot read", "pic.kb": "neither a file nor base64",
		"dev.kb": "not a plain file", "long.kb": "longer than can be counted", "absent.kb": "no such file", "huge.kb": "longer than",
	} {
		err := m.Play(t.Context(), vm.Target, filepath.Join(dir, name))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if in, _ := vm.seen(); len(in) != 0 || len(m.List()) != 0 {
		t.Errorf("something was played: %v", in)
	}
}

// picture draws a pattern that is nowhere else on the screen.
func picture() *image.RGBA {
	p := image.NewRGBA(image.Rect(0, 0, 20, 10))
	for y := range 10 {
		for x := range 20 {
			p.SetRGBA(x, y, color.RGBA{uint8(x * 12), uint8(y * 25), uint8(x*y) & 0xf0, 255})
		}
	}
	return p
}

func TestWaitAndClick(t *testing.T) {
	vm := newMachine(t, "wait", 200, 100)
	m := newManager(t)
	var buf bytes.Buffer
	if err := png.Encode(&buf, picture()); err != nil {
		t.Fatal(err)
	}
	dir := writeFiles(t, map[string]string{"pics/p.png": buf.String(),
		"w.kb": "0:WaitForIt,20s,pics/p.png\n0:KeyEvent,true,a\n0:KeyEvent,false,a\n0:ClickItEvent,10s," + base64.StdEncoding.EncodeToString(buf.Bytes()) + "\n"})
	if err := m.Play(t.Context(), vm.Target, dir+"/w.kb"); err != nil {
		t.Fatal(err)
	}
	pause(t, 300*time.Millisecond)
	if in, _ := vm.seen(); len(in) != 0 {
		t.Errorf("did not wait: %v", in)
	}
	vm.Screen.Draw(func(img *image.RGBA) {
		for y := range 10 {
			for x := range 20 {
				c := picture().RGBAAt(x, y)
				c.R = uint8(min(int(c.R)+10, 255)) // not quite the same
				img.SetRGBA(120+x, 30+y, c)
			}
		}
	})
	eventually(t, func() bool { return len(m.List()) == 0 })
	in, _ := vm.seen()
	want := []vnc.Input{vnc.KeyEvent{Down: true, Keysym: 'a'}, vnc.KeyEvent{Keysym: 'a'}, vnc.PointerEvent{Buttons: 1, X: 130, Y: 35}, vnc.PointerEvent{X: 130, Y: 35}}
	if fmt.Sprint(in) != fmt.Sprint(want) {
		t.Errorf("played %v, want %v", in, want)
	}
}

func TestWaitTimesOut(t *testing.T) {
	vm := newMachine(t, "late", 200, 100)
	m := newManager(t)
	var buf bytes.Buffer
	if err := png.Encode(&buf, picture()); err != nil {
		t.Fatal(err)
	}
	dir := writeFiles(t, map[string]string{"p.png": buf.String(), "w.kb": "0:WaitForIt,300ms,p.png\n0:KeyEvent,true,a\n"})
	if err := m.Play(t.Context(), vm.Target, dir+"/w.kb"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(m.List()) == 0 })
	if err := m.StopPlay("ns", "late"); err == nil || !strings.Contains(err.Error(), "did not show p.png within 300ms") {
		t.Errorf("why it ended: %v", err)
	}
	if in, _ := vm.seen(); len(in) != 0 {
		t.Errorf("played on: %v", in)
	}
}

func TestFindWantsLikeness(t *testing.T) {
	screen := toGrey(image.NewRGBA(image.Rect(0, 0, 50, 50)))
	if at, ok := find(context.Background(), screen, toGrey(picture())); ok {
		t.Errorf("found at %v on a black screen", at)
	}
	if _, ok := find(context.Background(), toGrey(picture()), screen); ok {
		t.Error("found a picture larger than the screen")
	}
}

func FuzzTemplate(f *testing.F) {
	var buf bytes.Buffer
	if err := png.Encode(&buf, picture()); err != nil {
		f.Fatal(err)
	}
	f.Add(base64.StdEncoding.EncodeToString(buf.Bytes()))
	f.Add("data:image/png;base64,AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		g, err := loadTemplate(func(p string) string { return "/nonexistent/" + base64.StdEncoding.EncodeToString([]byte(p)) }, s)
		if err == nil && (g.w <= 0 || len(g.pix) != g.w*g.h) {
			t.Errorf("%dx%d with %d levels", g.w, g.h, len(g.pix))
		}
	})
}
