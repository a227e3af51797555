package record

import (
	"bytes"
	"context"
	"encoding/base64"
	"image"
	_ "image/gif"  // templates come in these formats
	_ "image/jpeg" // likewise
	_ "image/png"  // likewise
	"io"
	"strings"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// maxMatch is the largest mean difference of grey levels that is a match.
const maxMatch = 20

// maxTemplate bounds the file of a picture, in bytes.
const maxTemplate = 64 << 20

// grey is a picture of grey levels, row by row.
type grey struct {
	w, h int
	pix  []uint8
}

// loadTemplate reads a picture from a path or, if there is no such file, from base64.
func loadTemplate(resolve func(string) string, name string) (*grey, error) {
	data, err := readTemplate(resolve, name)
	if err != nil {
		return nil, err
	}
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err == nil && (c.Width > vnc.MaxSide || c.Height > vnc.MaxSide || c.Width*c.Height > vnc.MaxPixels || c.Width*c.Height == 0) {
		return nil, errs.New(errs.Invalid, "picture %.60s has an impossible size, %dx%d", name, c.Width, c.Height)
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "%.60s is neither a PNG, JPEG or GIF file nor one in base64: %w", name, err)
	}
	m, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, errs.New(errs.Invalid, "picture %.60s: %w", name, err)
	}
	return toGrey(m), nil
}

func readTemplate(resolve func(string) string, name string) ([]byte, error) {
	if f, err := openPlain(resolve(name)); err == nil {
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxTemplate+1))
		if err != nil || len(data) > maxTemplate {
			return nil, errs.New(errs.Invalid, "cannot read picture %s (at most %d bytes): %v", name, maxTemplate, err)
		}
		return data, nil
	}
	if _, enc, ok := strings.Cut(name, ";base64,"); ok && strings.HasPrefix(name, "data:") {
		name = enc
	}
	data, err := base64.StdEncoding.DecodeString(name)
	if err != nil {
		return nil, errs.New(errs.NotFound, "picture %.60s is neither a file nor base64", name)
	}
	return data, nil
}

func toGrey(m image.Image) *grey {
	b := m.Bounds()
	g := &grey{w: b.Dx(), h: b.Dy(), pix: make([]uint8, 0, b.Dx()*b.Dy())}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			red, green, blue, _ := m.At(x, y).RGBA()
			g.pix = append(g.pix, uint8((299*red+587*green+114*blue)/1000>>8))
		}
	}
	return g
}

// find returns the centre of the place on the screen that is most like
// template, by the mean of absolute differences. ok is false if nothing is
// like it, or ctx ended.
func find(ctx context.Context, screen, template *grey) (at image.Point, ok bool) {
	best := maxMatch*template.w*template.h + 1
	for y := 0; y+template.h <= screen.h; y++ {
		if ctx.Err() != nil {
			return at, false
		}
		for x := 0; x+template.w <= screen.w; x++ {
			if d := difference(screen, template, x, y, best); d < best {
				best, ok = d, true
				at = image.Pt(x+template.w/2, y+template.h/2)
			}
		}
		if best == 0 {
			break
		}
	}
	return at, ok
}

// difference sums the differences at a place, and gives up at limit.
func difference(screen, template *grey, x, y, limit int) int {
	sum := 0
	for row := range template.h {
		s := screen.pix[(y+row)*screen.w+x:][:template.w]
		t := template.pix[row*template.w:][:template.w]
		for i, v := range t {
			d := int(s[i]) - int(v)
			sum += max(d, -d)
		}
		if sum >= limit {
			return sum
		}
	}
	return sum
}
