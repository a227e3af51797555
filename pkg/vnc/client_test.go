package vnc

import (
	"bytes"
	"image"
	"image/color"
	"testing"
)

func TestClientSeesScreen(t *testing.T) {
	s := newTestServer(t, 200, 100)
	var want []byte
	s.Screen.Draw(func(m *image.RGBA) { noise(m); want = bytes.Clone(m.Pix) })
	for _, opts := range []Options{{}, {Version33: true}, {Exclusive: true, Encodings: []Encoding{EncRaw}}} {
		c := dialTest(t, s.dial, opts)
		got, err := c.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if c.Name() != "test" || !bytes.Equal(got.Pix, want) {
			t.Errorf("%+v: screen of %q differs", opts, c.Name())
		}
	}
}

func TestClientFollowsChangeAndResize(t *testing.T) {
	s := newTestServer(t, 64, 64)
	c := dialTest(t, s.dial, Options{})
	if _, err := c.Capture(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Request(true, c.Image().Rect); err != nil {
		t.Fatal(err)
	}
	s.Screen.Draw(func(m *image.RGBA) { m.SetRGBA(3, 40, color.RGBA{1, 2, 3, 255}) })
	m, err := c.Next()
	if err != nil {
		t.Fatal(err)
	}
	if u := m.(Update); u.Area != image.Rect(0, 32, 64, 48) || c.Image().RGBAAt(3, 40) != (color.RGBA{1, 2, 3, 255}) {
		t.Errorf("update %+v, pixel %v", u, c.Image().RGBAAt(3, 40))
	}
	if err := s.Screen.Show(image.NewRGBA(image.Rect(0, 0, 80, 30))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Capture(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w, h := c.Size(); w != 80 || h != 30 {
		t.Errorf("size %dx%d after resize", w, h)
	}
}

func TestClientSendsInput(t *testing.T) {
	s := newTestServer(t, 10, 10)
	c := dialTest(t, s.dial, Options{})
	want := []Input{KeyEvent{true, 'a'}, KeyEvent{false, 'a'}, PointerEvent{5, 3, 9}, CutText{Text: "grüß"}}
	for _, in := range want {
		var err error
		switch in := in.(type) {
		case KeyEvent:
			err = c.Key(in)
		case PointerEvent:
			err = c.Pointer(in)
		case CutText:
			err = c.Cut(in)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, got := range s.wait(t, len(want)) {
		if got != want[i] {
			t.Errorf("input %d: %#v, want %#v", i, got, want[i])
		}
	}
}
