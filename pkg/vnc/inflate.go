package vnc

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"image"
	"io"
)

// inflaters are the zlib streams of a connection: one of the zlib encoding,
// four of Tight. Each lives as long as the connection.
type inflaters struct {
	zlib  inflater
	tight [4]inflater
}

// inflater is one zlib stream that arrives in pieces.
type inflater struct {
	in bytes.Buffer
	zr io.ReadCloser
}

// piece adds n bytes of r, which hold the pixels of area, to the stream and
// lets use read what they inflate to.
func (f *inflater) piece(r io.Reader, n int64, area image.Rectangle, use func(io.Reader) error) error {
	if n > maxPiece(area) {
		return fmt.Errorf("%d bytes of zlib data for a rectangle %v", n, area)
	}
	if _, err := io.CopyN(&f.in, r, n); err != nil {
		return noEOF(err)
	}
	if f.zr == nil {
		zr, err := zlib.NewReader(&f.in)
		if err != nil {
			return fmt.Errorf("zlib: %w", err)
		}
		f.zr = zr
	}
	if err := use(f.zr); err != nil {
		return fmt.Errorf("zlib: %w", noEOF(err))
	}
	if f.in.Len() > maxLeft {
		return fmt.Errorf("%d bytes of zlib data beyond a rectangle %v", f.in.Len(), area)
	}
	return nil
}

func (d *decoder) inflaters() *inflaters {
	if d.inflate == nil {
		d.inflate = &inflaters{}
	}
	return d.inflate
}

// maxLeft bounds what a piece may hold beyond its pixels: zlib's flush marks.
const maxLeft = 64

// maxPiece bounds compressed data: it may be a little longer than the pixels.
func maxPiece(area image.Rectangle) int64 { return int64(area.Dx())*int64(area.Dy())*bpp*2 + 1024 }

func (d *decoder) zlib(area image.Rectangle) error {
	b, err := d.bytes(4)
	if err != nil {
		return err
	}
	n := int64(binary.BigEndian.Uint32(b))
	return d.inflaters().zlib.piece(d.r, n, area, func(r io.Reader) error { return d.rawFrom(r, area) })
}
