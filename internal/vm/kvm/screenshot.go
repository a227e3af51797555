package kvm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"

	"minimega/internal/errs"
)

// maxSide bounds a screen; QEMU's largest is 16,384.
const maxSide = 16384

// maxPixels bounds what a picture may take in memory: 64 million are an 8K
// screen twice over.
const maxPixels = 64 << 20

// Screenshot takes a picture of the screen, keeps it as screenshot.png in the
// instance directory and returns it.
func (m *Machine) Screenshot(ctx context.Context, max int) ([]byte, error) {
	select {
	case m.shot <- struct{}{}:
		defer func() { <-m.shot }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	img, err := m.dump(ctx)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(&b, shrink(img, max)); err != nil {
		return nil, err
	}
	return b.Bytes(), replaceFile(filepath.Join(m.dir, "screenshot.png"), b.Bytes())
}

// dump has QEMU write the screen as PPM, which every version can.
func (m *Machine) dump(ctx context.Context) (*image.RGBA, error) {
	path := filepath.Join(m.dir, "screenshot.ppm")
	defer os.Remove(path)
	if err := m.execute(ctx, "screendump", map[string]string{"filename": path}, nil); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	img, err := decodePPM(f)
	if err != nil {
		return nil, errs.New(errs.Internal, "picture that QEMU wrote: %w", err)
	}
	return img, nil
}

// replaceFile writes a file so that nobody sees half of it.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	err := os.WriteFile(tmp, b, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, removeFile(tmp))
	}
	return nil
}

// decodePPM reads a binary PPM (netpbm "P6") of 8 bits per colour.
func decodePPM(in io.Reader) (*image.RGBA, error) {
	r := bufio.NewReaderSize(in, 64<<10)
	var magic [2]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil || string(magic[:]) != "P6" {
		return nil, errors.New("no PPM header")
	}
	var v [3]int // width, height, largest value
	for i := range v {
		n, err := ppmNumber(r)
		if err != nil {
			return nil, err
		}
		v[i] = n
	}
	w, h := v[0], v[1]
	if w < 1 || h < 1 || w > maxSide || h > maxSide || w*h > maxPixels || v[2] != 255 {
		return nil, fmt.Errorf("PPM of %d x %d pixels and values to %d is not supported", w, h, v[2])
	}
	// Row by row, so that a short file cannot claim memory for a large one.
	row := make([]byte, 3*w)
	img := &image.RGBA{Stride: 4 * w, Rect: image.Rect(0, 0, w, h)}
	for range h {
		if _, err := io.ReadFull(r, row); err != nil {
			return nil, fmt.Errorf("PPM is cut short: %w", err)
		}
		for x := 0; x < len(row); x += 3 {
			img.Pix = append(img.Pix, row[x], row[x+1], row[x+2], 255)
		}
	}
	return img, nil
}

// ppmNumber reads a decimal number, the white space and comments before it,
// and the one character after it.
func ppmNumber(r *bufio.Reader) (int, error) {
	n, digits := 0, 0
	for {
		b, err := r.ReadByte()
		switch {
		case err != nil:
			return 0, fmt.Errorf("PPM header: %w", err)
		case b >= '0' && b <= '9' && digits < 6:
			n, digits = 10*n+int(b-'0'), digits+1
		case digits > 0 && isSpace(b):
			return n, nil
		case digits == 0 && b == '#':
			if _, err := r.ReadSlice('\n'); err != nil {
				return 0, fmt.Errorf("PPM comment: %w", err)
			}
		case digits == 0 && isSpace(b):
		default:
			return 0, errors.New("malformed PPM header")
		}
	}
}

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

// shrink scales an image down, by averaging, until no side is longer than max.
func shrink(img *image.RGBA, max int) *image.RGBA {
	w, h := img.Rect.Dx(), img.Rect.Dy()
	long := w
	if h > w {
		long = h
	}
	if max <= 0 || long <= max {
		return img
	}
	nw, nh := scale(w, max, long), scale(h, max, long)
	out := image.NewRGBA(image.Rect(0, 0, nw, nh))
	for y := range nh {
		for x := range nw {
			average(img, image.Rect(x*w/nw, y*h/nh, (x+1)*w/nw, (y+1)*h/nh), out.Pix[out.PixOffset(x, y):])
		}
	}
	return out
}

func scale(side, max, long int) int {
	if n := side * max / long; n > 0 {
		return n
	}
	return 1
}

// average writes the mean colour of a part of img.
func average(img *image.RGBA, part image.Rectangle, to []byte) {
	var sum [4]int
	for y := part.Min.Y; y < part.Max.Y; y++ {
		row := img.Pix[img.PixOffset(part.Min.X, y):img.PixOffset(part.Max.X, y)]
		for i, v := range row {
			sum[i%4] += int(v)
		}
	}
	n := part.Dx() * part.Dy()
	for i := range sum {
		to[i] = byte(sum[i] / n)
	}
}
