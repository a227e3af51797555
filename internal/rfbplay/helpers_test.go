package rfbplay

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/pkg/vnc"
)

func TestMain(m *testing.M) {
	if os.Getenv(asFFmpeg) != "" {
		os.Exit(fakeFFmpeg())
	}
	goleak.VerifyTestMain(m)
}

// maker makes a recording.
type maker struct {
	t    *testing.T
	path string
	f    *os.File
	w    *vnc.FBWriter
}

func newMaker(t *testing.T, w, h int) *maker {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.fb")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	fw, err := vnc.NewFBWriter(f, w, h)
	if err != nil {
		t.Fatal(err)
	}
	return &maker{t, path, f, fw}
}

// rect records an update of one rectangle in Raw encoding.
func (m *maker) rect(at time.Duration, area image.Rectangle, pixel func(x, y int) color.RGBA) {
	m.t.Helper()
	b := []byte{0, 0, 0, 1}
	for _, v := range []int{area.Min.X, area.Min.Y, area.Dx(), area.Dy(), 0, 0} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			c := pixel(x, y)
			b = append(b, c.B, c.G, c.R, 0)
		}
	}
	if err := m.w.WriteChunk(at, b); err != nil {
		m.t.Fatal(err)
	}
}

func (m *maker) resize(at time.Duration, w, h int) {
	m.t.Helper()
	b := []byte{0, 0, 0, 1, 0, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(w))
	b = binary.BigEndian.AppendUint16(b, uint16(h))
	size := vnc.EncDesktopSize
	if err := m.w.WriteChunk(at, binary.BigEndian.AppendUint32(b, uint32(size))); err != nil {
		m.t.Fatal(err)
	}
}

// done completes the recording, which lasts until end.
func (m *maker) done(end time.Duration) string {
	m.t.Helper()
	if err := m.w.Mark(end); err != nil {
		m.t.Fatal(err)
	}
	if err := m.w.Close(); err != nil {
		m.t.Fatal(err)
	}
	if err := m.f.Close(); err != nil {
		m.t.Fatal(err)
	}
	return m.path
}

func plain(c color.RGBA) func(x, y int) color.RGBA {
	return func(int, int) color.RGBA { return c }
}

func noise(int, int) color.RGBA {
	v := rand.Uint32()
	return color.RGBA{uint8(v), uint8(v >> 8), uint8(v >> 16), 255}
}

var (
	red  = color.RGBA{255, 0, 0, 255}
	blue = color.RGBA{0, 0, 255, 255}
)

// sample is a recording of a second and a half: black, at 250 ms red, at 600 ms
// with a blue square, at 1 s the screen is larger and red above blue.
func sample(t *testing.T) string {
	m := newMaker(t, 40, 20)
	m.rect(250*time.Millisecond, image.Rect(0, 0, 40, 20), plain(red))
	m.rect(600*time.Millisecond, image.Rect(10, 5, 20, 15), plain(blue))
	m.resize(time.Second, 60, 30)
	m.rect(time.Second, image.Rect(0, 0, 60, 30), func(_, y int) color.RGBA {
		if y < 15 {
			return red
		}
		return blue
	})
	return m.done(1500 * time.Millisecond)
}

// sampleAt tells what the sample shows.
func sampleAt(at time.Duration) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, 40, 20))
	if at >= time.Second {
		m = image.NewRGBA(image.Rect(0, 0, 60, 30))
	}
	paint := func(r image.Rectangle, c color.RGBA) { draw.Draw(m, r, image.NewUniform(c), image.Point{}, draw.Src) }
	paint(m.Rect, color.RGBA{A: 255})
	switch {
	case at >= time.Second:
		paint(image.Rect(0, 0, 60, 15), red)
		paint(image.Rect(0, 15, 60, 30), blue)
	case at >= 250*time.Millisecond:
		paint(m.Rect, red)
		if at >= 600*time.Millisecond {
			paint(image.Rect(10, 5, 20, 15), blue)
		}
	}
	return m
}

// equal tells whether two pictures look alike.
func equal(a, b image.Image) bool {
	if a.Bounds() != b.Bounds() {
		return false
	}
	x, y := image.NewRGBA(a.Bounds()), image.NewRGBA(a.Bounds())
	draw.Draw(x, x.Rect, a, a.Bounds().Min, draw.Src)
	draw.Draw(y, y.Rect, b, b.Bounds().Min, draw.Src)
	return bytes.Equal(x.Pix, y.Pix)
}

// run runs the program on a recording.
func run(t *testing.T, in, out string, change ...func(*Config)) (stdout, stderr string, err error) {
	t.Helper()
	c := Default()
	c.Input, c.Output = in, out
	for _, f := range change {
		f(&c)
	}
	var o, e bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	err = Run(ctx, c, &o, &e)
	return o.String(), e.String(), err
}

// files lists a directory.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
