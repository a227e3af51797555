package kvm

import (
	"bytes"
	"context"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func checkScreenshot(t *testing.T, m *Machine) {
	t.Helper()
	for max, want := range map[int]int{0: 720, 100: 100} {
		b, err := m.Screenshot(within(t, time.Minute), max)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		// Text mode until the guest changes it.
		if w := img.Bounds().Dx(); w != want && w != 640 {
			t.Errorf("max %d: width %d, want %d", max, w, want)
		}
		if kept, err := os.ReadFile(filepath.Join(m.dir, "screenshot.png")); err != nil || !bytes.Equal(kept, b) {
			t.Errorf("kept %d bytes of %d, %v", len(kept), len(b), err)
		}
	}
	if _, err := os.Stat(filepath.Join(m.dir, "screenshot.ppm")); err == nil {
		t.Error("a file is left")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Screenshot(ctx, 0); err == nil {
		t.Error("screenshot with an ended context")
	}
}

func TestDecodePPM(t *testing.T) {
	img, err := decodePPM(strings.NewReader("P6\n# QEMU\n2 1 255\nabcdef"))
	if err != nil || img.Bounds() != image.Rect(0, 0, 2, 1) || img.At(1, 0) != (color.RGBA{'d', 'e', 'f', 255}) {
		t.Errorf("%v, %v", img, err)
	}
	for in, want := range map[string]string{
		"":                                  "no PPM header",
		"P5 1 1 255 a":                      "no PPM header",
		"P6 1 1 65535 a":                    "not supported",
		"P6 16384 16384 255 a":              "not supported",
		"P6 16384 4096 255 a":               "cut short",
		"P6 99999999999 1 255 a":            "malformed",
		"P6 -1 1 255 a":                     "malformed",
		"P6 1":                              "EOF",
		"P6 #" + strings.Repeat("x", 1<<20): "comment",
	} {
		if _, err := decodePPM(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.30q: %v", in, err)
		}
	}
}

func TestShrink(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 200, 3))
	for x := range 200 {
		for y := range 3 {
			img.Set(x, y, color.RGBA{uint8(x % 2 * 200), 10, 20, 255})
		}
	}
	got := shrink(img, 100)
	if got.Bounds() != image.Rect(0, 0, 100, 1) || got.At(50, 0) != (color.RGBA{100, 10, 20, 255}) {
		t.Errorf("%v, %v", got.Bounds(), got.At(50, 0))
	}
	if shrink(img, 0) != img || shrink(img, 200) != img {
		t.Error("small enough, yet changed")
	}
}

func FuzzDecodePPM(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\nabcdef"))
	f.Add([]byte("P6 #\n 1 1 255 abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := decodePPM(bytes.NewReader(b))
		if err != nil {
			return
		}
		w, h := img.Bounds().Dx(), img.Bounds().Dy()
		if len(img.Pix) != 4*w*h || 3*w*h > len(b) {
			t.Fatalf("%d x %d pixels from %d bytes", w, h, len(b))
		}
		shrink(img, 3)
	})
}
