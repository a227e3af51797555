package rfbplay

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/internal/errs"
)

func TestPNGFrames(t *testing.T) {
	for _, from := range []time.Duration{0, 700 * time.Millisecond} {
		dir := t.TempDir()
		out, _, err := run(t, sample(t), filepath.Join(dir, "f-%03d.png"), func(c *Config) { c.Offset = from })
		if err != nil {
			t.Fatal(err)
		}
		n := int((1500*time.Millisecond-from)/(100*time.Millisecond)) + 1
		if got := files(t, dir); len(got) != n || !strings.HasPrefix(out, fmt.Sprintf("%d frames", n)) {
			t.Errorf("%v, want %d; said %q", got, n, out)
		}
		for i := range n {
			data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("f-%03d.png", i+1)))
			if err != nil {
				t.Fatal(err)
			}
			m, err := png.Decode(bytes.NewReader(data))
			at := from + time.Duration(i)*100*time.Millisecond
			if err != nil || !equal(m, sampleAt(at)) {
				t.Errorf("frame at %v differs: %v", at, err)
			}
		}
	}
}

func TestPNGOfManyColours(t *testing.T) {
	m := newMaker(t, 100, 100)
	m.rect(0, image.Rect(0, 0, 100, 100), noise)
	dir := t.TempDir()
	if _, _, err := run(t, m.done(50*time.Millisecond), filepath.Join(dir, "n.png")); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(dir, "n-000001.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := png.Decode(f); err != nil || got.Bounds().Dx() != 100 {
		t.Errorf("%v", err)
	}
}

func TestPNGTouchesNothingThatIsThere(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f-05.png"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err := run(t, sample(t), filepath.Join(dir, "f-%02d.png"))
	if !errors.Is(err, errs.Exists) {
		t.Errorf("error %v", err)
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left: %v", got)
	}
}

// gifAt plays a GIF up to a time.
func gifAt(g *gif.GIF, at time.Duration) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, g.Config.Width, g.Config.Height))
	var t time.Duration
	for i, p := range g.Image {
		if t > at {
			break
		}
		draw.Draw(m, p.Rect, p, p.Rect.Min, draw.Over)
		t += time.Duration(g.Delay[i]) * 10 * time.Millisecond
	}
	return m
}

func readGIF(t *testing.T, path string) *gif.GIF {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gif.DecodeAll(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGIF(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.gif")
	if _, _, err := run(t, sample(t), path); err != nil {
		t.Fatal(err)
	}
	g := readGIF(t, path)
	for at := time.Duration(0); at < 1500*time.Millisecond; at += 100 * time.Millisecond {
		want := image.NewRGBA(image.Rect(0, 0, 60, 30)) // the largest screen
		draw.Draw(want, want.Rect, image.Black, image.Point{}, draw.Src)
		draw.Draw(want, want.Rect, sampleAt(at), image.Point{}, draw.Over)
		got := gifAt(g, at)
		if small := sampleAt(at).Rect; !equal(got.SubImage(small), want.SubImage(small)) {
			t.Errorf("at %v it differs", at)
		}
	}
	if len(g.Image) != 5 || // the last is one pixel, and keeps the time
		len(files(t, dir)) != 1 {
		t.Errorf("%d pictures, files %v", len(g.Image), files(t, dir))
	}
}

func TestGIFStaysLong(t *testing.T) {
	m := newMaker(t, 10, 10)
	m.rect(0, image.Rect(0, 0, 10, 10), plain(red))
	m.rect(25*time.Minute, image.Rect(0, 0, 10, 10), plain(blue))
	path := filepath.Join(t.TempDir(), "x.gif")
	if _, _, err := run(t, m.done(25*time.Minute+time.Second), path); err != nil {
		t.Fatal(err)
	}
	g := readGIF(t, path)
	total := 0
	for _, d := range g.Delay {
		total += d
	}
	if want := (25*60+1)*100 + 10; total != want {
		t.Errorf("it lasts %d, want %d", total, want)
	}
	if !equal(gifAt(g, 25*time.Minute-time.Second), sampleOf(red)) || !equal(gifAt(g, 25*time.Minute), sampleOf(blue)) {
		t.Error("a picture comes at the wrong time")
	}
}

func sampleOf(c color.RGBA) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, 10, 10))
	draw.Draw(m, m.Rect, image.NewUniform(c), image.Point{}, draw.Src)
	return m
}

// TestGIFOfManyColours: the 256 colours are near those that were there.
func TestGIFOfManyColours(t *testing.T) {
	shade := func(x, y int) color.RGBA { return color.RGBA{uint8(x), uint8(y), uint8((x + y) / 2), 255} }
	m := newMaker(t, 256, 256)
	m.rect(0, image.Rect(0, 0, 256, 256), shade)
	path := filepath.Join(t.TempDir(), "x.gif")
	if _, _, err := run(t, m.done(50*time.Millisecond), path); err != nil {
		t.Fatal(err)
	}
	got := gifAt(readGIF(t, path), 0)
	sum := 0
	for y := range 256 {
		for x := range 256 {
			a, b := got.RGBAAt(x, y), shade(x, y)
			for _, d := range []int{int(a.R) - int(b.R), int(a.G) - int(b.G), int(a.B) - int(b.B)} {
				sum += max(d, -d)
			}
		}
	}
	mean := float64(sum) / (3 * 256 * 256)
	t.Logf("mean difference of a channel: %.2f of 255", mean)
	if mean > 5 {
		t.Errorf("colours are %.1f off", mean)
	}
}

func TestCutRecordingIsPlayedAsFarAsItGoes(t *testing.T) {
	m := newMaker(t, 10, 10)
	m.rect(0, image.Rect(0, 0, 10, 10), plain(red))
	m.rect(200*time.Millisecond, image.Rect(0, 0, 10, 10), plain(blue))
	if err := errors.Join(m.w.Flush(), m.f.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "x.gif")
	_, said, err := run(t, m.path, path)
	if err != nil || !strings.Contains(said, "was cut off") {
		t.Fatalf("%v, %q", err, said)
	}
	if g := readGIF(t, path); !equal(gifAt(g, time.Second), sampleOf(blue)) {
		t.Error("the last picture is not there")
	}
}

func TestBadRequests(t *testing.T) {
	good := sample(t)
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("no recording at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	late := func(c *Config) { c.Offset = -time.Second }
	fast := func(c *Config) { c.Rate = 1000 }
	vnc := func(c *Config) { c.VNC = 5999 }
	for _, b := range []struct {
		in, out, want string
		change        func(*Config)
	}{
		{good, filepath.Join(dir, "x"), "does not say what to make", nil},
		{good, dir, "is a directory", nil},
		{good, filepath.Join(dir, "no", "x.gif"), "no such file", nil},
		{good, filepath.Join(dir, "no", "%d.png"), "no such file", nil},
		{good, filepath.Join(dir, "%d-%d.png"), "stands for the number", nil},
		{good, filepath.Join(dir, "%s.png"), "stands for the number", nil},
		{good, filepath.Join(dir, "%99999999d.png"), "stands for the number", nil},
		{junk, filepath.Join(dir, "x.gif"), "not an fb recording", nil},
		{filepath.Join(dir, "none"), filepath.Join(dir, "x.gif"), "no such file", nil},
		{dir, filepath.Join(dir, "x.gif"), "is not a recording", nil},
		{good, "", "is not a directory", nil},
		{"", "", "give a directory", nil},
		{good, filepath.Join(dir, "x.gif"), "negative", late},
		{good, filepath.Join(dir, "x.gif"), "1 to 50", fast},
		{good, filepath.Join(dir, "x.gif"), "makes no file", vnc},
		{dir, "", "is not a recording", vnc},
	} {
		if b.change == nil {
			b.change = func(*Config) {}
		}
		if _, _, err := run(t, b.in, b.out, b.change); err == nil || !strings.Contains(err.Error(), b.want) {
			t.Errorf("%s to %s: %v, want %q", b.in, b.out, err, b.want)
		}
	}
	if got := files(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

func TestPNGsAreNotWithoutEnd(t *testing.T) {
	m := newMaker(t, 10, 10)
	m.rect(0, image.Rect(0, 0, 10, 10), plain(red))
	dir := t.TempDir()
	if _, _, err := run(t, m.done(365*24*time.Hour), filepath.Join(dir, "x.png")); err == nil || !strings.Contains(err.Error(), "lower -rate") {
		t.Errorf("a year of frames: %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

// TestInterruptLeavesNothing stops in the middle.
func TestInterruptLeavesNothing(t *testing.T) {
	in := sample(t)
	for _, name := range []string{"x.gif", "x.png", "x.mp4"} {
		dir := t.TempDir()
		c := Default()
		withFake(t, "work")(&c)
		c.Input, c.Output = in, filepath.Join(dir, name)
		ctx, cancel := context.WithCancel(t.Context())
		out, err := c.sink(ctx)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := openRecording(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rec.advance(time.Second); err != nil {
			t.Fatal(err)
		}
		err = out.frame(ctx, rec.screen, change{rec.screen.Rect, true}, 3)
		cancel()
		rec.close()
		out.abandon()
		if got := files(t, dir); len(got) != 0 || err != nil {
			t.Errorf("%s: left %v, %v", name, got, err)
		}
		if err := Run(ctx, c, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
		if got := files(t, dir); len(got) != 0 {
			t.Errorf("%s: left %v", name, got)
		}
	}
}

// FuzzTranscode: whatever a file holds, the tool says so or makes a GIF that
// can be read, and PNG files.
func FuzzTranscode(f *testing.F) {
	seed := func(parts ...string) {
		var b bytes.Buffer
		zw := gzip.NewWriter(&b)
		for _, p := range parts {
			fmt.Fprintf(zw, "%s\r\n", p)
		}
		_ = zw.Close()
		f.Add(b.Bytes())
	}
	seed("0 16\r\n\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x00\x02\xff\xff\xff\x21", "100 20\r\n\x00\x00\x00\x01\x00\x01\x00\x01\x00\x01\x00\x01\x00\x00\x00\x00abcd", "999999999 4\r\n\x00\x00\x00\x00")
	seed("0 4\r\n\x00\x00\x00\x00", "9223372036854775807 4\r\n\x00\x00\x00\x00")
	f.Add([]byte("no gzip"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		in := filepath.Join(dir, "in.fb")
		if err := os.WriteFile(in, data, 0o600); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "x.gif")
		if _, _, err := run(t, in, path); err == nil {
			if g := readGIF(t, path); len(g.Image) == 0 {
				t.Error("a GIF without a picture")
			}
		} else if got := files(t, dir); len(got) != 1 {
			t.Errorf("left: %v", got)
		}
	})
}
