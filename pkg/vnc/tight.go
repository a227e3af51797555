package vnc

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/jpeg"
	"io"
)

// Tight encoding ("rfbproto", 7.7.6), with its three-byte pixels.
const (
	tightFill     = 8
	tightJPEG     = 9
	tightFiltered = 4 // bit of basic compression: a filter byte follows
	tightPlain    = 12
	tpixel        = 3

	filterCopy     = 0
	filterPalette  = 1
	filterGradient = 2
)

func (d *decoder) tight(area image.Rectangle) error {
	control, err := d.r.ReadByte()
	if err != nil {
		return err
	}
	s := d.inflaters()
	for i := range s.tight {
		if control&(1<<i) != 0 {
			s.tight[i] = inflater{}
		}
	}
	switch kind := control >> 4; {
	case kind == tightFill:
		return d.tightFill(area)
	case kind == tightJPEG:
		return d.tightJPEG(area)
	case kind < tightFill:
		return d.tightBasic(area, &s.tight[kind&3], kind&tightFiltered != 0)
	default:
		return fmt.Errorf("tight: unknown compression %d", kind)
	}
}

func (d *decoder) tightFill(area image.Rectangle) error {
	b, err := d.bytes(tpixel)
	if err != nil {
		return err
	}
	draw.Draw(d.screen, area, image.NewUniform(color.RGBA{R: b[0], G: b[1], B: b[2], A: alpha}), image.Point{}, draw.Src)
	return nil
}

func (d *decoder) tightJPEG(area image.Rectangle) error {
	n, err := d.compactLen()
	if err != nil {
		return err
	}
	data := make([]byte, n) // n has 22 bits
	if _, err := io.ReadFull(d.r, data); err != nil {
		return err
	}
	c, err := jpeg.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("tight: %w", err)
	}
	if c.Width != area.Dx() || c.Height != area.Dy() {
		return fmt.Errorf("tight: a picture of %dx%d for a rectangle %v", c.Width, c.Height, area)
	}
	m, err := jpeg.Decode(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("tight: %w", err)
	}
	draw.Draw(d.screen, area, m, m.Bounds().Min, draw.Src)
	return nil
}

// compactLen reads a length of one to three bytes, seven bits first.
func (d *decoder) compactLen() (int64, error) {
	var n int64
	for shift := 0; shift <= 14; shift += 7 {
		b, err := d.r.ReadByte()
		if err != nil {
			return 0, err
		}
		if shift == 14 {
			return n | int64(b)<<shift, nil
		}
		n |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	return n, nil
}

func (d *decoder) tightBasic(area image.Rectangle, stream *inflater, filtered bool) error {
	filter := byte(filterCopy)
	var err error
	if filtered {
		if filter, err = d.r.ReadByte(); err != nil {
			return err
		}
	}
	var palette []byte
	rowLen := area.Dx() * tpixel
	switch filter {
	case filterCopy, filterGradient:
	case filterPalette:
		if palette, err = d.tightPalette(); err != nil {
			return err
		}
		rowLen = area.Dx()
		if len(palette) <= 2*tpixel {
			rowLen = (rowLen + 7) / 8
		}
	default:
		return fmt.Errorf("tight: unknown filter %d", filter)
	}
	return d.tightData(area, stream, rowLen, func(r io.Reader) error {
		return d.tightRows(r, area, rowLen, filter == filterGradient, palette)
	})
}

func (d *decoder) tightPalette() ([]byte, error) {
	n, err := d.r.ReadByte()
	if err != nil {
		return nil, err
	}
	palette := make([]byte, (int(n)+1)*tpixel)
	_, err = io.ReadFull(d.r, palette)
	return palette, err
}

// tightData lets use read the rows, which are sent as they are when there is little of them.
func (d *decoder) tightData(area image.Rectangle, stream *inflater, rowLen int, use func(io.Reader) error) error {
	if area.Empty() {
		return nil
	}
	if rowLen*area.Dy() < tightPlain {
		return use(d.r)
	}
	n, err := d.compactLen()
	if err != nil {
		return err
	}
	return stream.piece(d.r, n, area, use)
}

func (d *decoder) tightRows(r io.Reader, area image.Rectangle, rowLen int, gradient bool, palette []byte) error {
	row, above := make([]byte, rowLen), make([]byte, rowLen)
	for y := area.Min.Y; y < area.Max.Y; y++ {
		if _, err := io.ReadFull(r, row); err != nil {
			return err
		}
		out := d.screen.Pix[d.screen.PixOffset(area.Min.X, y):][:area.Dx()*bpp]
		switch {
		case palette != nil:
			if err := paletteRow(out, row, palette); err != nil {
				return err
			}
		case gradient:
			gradientRow(row, above)
			copyRow(out, row)
			row, above = above, row
		default:
			copyRow(out, row)
		}
	}
	return nil
}

func copyRow(out, row []byte) {
	for i, j := 0, 0; i < len(out); i, j = i+bpp, j+tpixel {
		out[i], out[i+1], out[i+2], out[i+3] = row[j], row[j+1], row[j+2], alpha
	}
}

func paletteRow(out, row, palette []byte) error {
	for x := range len(out) / bpp {
		var n int
		if len(palette) <= 2*tpixel {
			n = int(row[x/8]>>(7-x%8)) & 1
		} else {
			n = int(row[x])
		}
		if n >= len(palette)/tpixel {
			return fmt.Errorf("tight: colour %d of %d", n, len(palette)/tpixel)
		}
		copyRow(out[x*bpp:][:bpp], palette[n*tpixel:])
	}
	return nil
}

// gradientRow adds to each channel what its neighbours predict.
func gradientRow(row, above []byte) {
	for i := range row {
		var left, corner int
		if i >= tpixel {
			left, corner = int(row[i-tpixel]), int(above[i-tpixel])
		}
		row[i] += byte(min(max(left+int(above[i])-corner, 0), 255))
	}
}
