package rfbplay

import (
	"bufio"
	"compress/lzw"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/draw"
	"io"
	"math/bits"

	"minimega/internal/errs"
)

// gifSink writes an animated GIF ("GIF89a Specification", CompuServe 1990), each
// frame no larger than what has changed.
type gifSink struct {
	out    *output
	w      *bufio.Writer
	rate   int64
	ticks  int64       // periods so far
	canvas *image.RGBA // as large as the largest screen so far
	c      colours
}

const (
	gifHead    = "GIF89a"
	gifSizeAt  = int64(len(gifHead)) // of width and height in the file
	gifMaxTime = 65535               // hundredths of a second that a frame can stay
	gifLoop    = "\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"
)

func newGIF(path string, rate int) (*gifSink, error) {
	out, err := newOutput(path)
	if err != nil {
		return nil, err
	}
	g := &gifSink{out: out, w: bufio.NewWriterSize(out, 64<<10), rate: int64(rate), canvas: &image.RGBA{}}
	_, err = g.w.WriteString(gifHead + "\x00\x00\x00\x00\x70\x00\x00" + gifLoop) // the size comes at the end
	if err != nil {
		out.abandon()
		return nil, err
	}
	return g, nil
}

func (g *gifSink) frame(_ context.Context, screen *image.RGBA, c change, n int64) error {
	area := c.area.Intersect(screen.Rect)
	if c.resized {
		g.grow(screen.Rect)
		draw.Draw(g.canvas, g.canvas.Rect, image.Black, image.Point{}, draw.Src)
		area = screen.Rect
	}
	draw.Draw(g.canvas, area, screen, area.Min, draw.Src)
	if c.resized {
		area = g.canvas.Rect
	}
	if area.Empty() {
		area = image.Rect(0, 0, 1, 1)
	}
	left := (g.ticks+n)*100/g.rate - g.ticks*100/g.rate
	for g.ticks += n; ; area = image.Rect(0, 0, 1, 1) {
		stay := min(left, gifMaxTime)
		if err := g.picture(area, stay); err != nil {
			return errs.New(errs.Resource, "cannot write %s: %w", g.out.path, plainError(err))
		}
		if left -= stay; left == 0 {
			return nil
		}
	}
}

// grow makes the canvas large enough for r.
func (g *gifSink) grow(r image.Rectangle) {
	if all := g.canvas.Rect.Union(r); all != g.canvas.Rect {
		g.canvas = image.NewRGBA(all)
	}
}

// picture writes an area of the canvas, to stay for some hundredths of a second.
func (g *gifSink) picture(area image.Rectangle, stay int64) error {
	g.c.of(g.canvas, area)
	depth := max(bits.Len(uint(len(g.c.palette)-1)), 1)
	b := []byte{0x21, 0xf9, 4, 1 << 2, byte(stay), byte(stay >> 8), 0, 0, 0x2c}
	for _, v := range []int{area.Min.X, area.Min.Y, area.Dx(), area.Dy()} {
		b = binary.LittleEndian.AppendUint16(b, uint16(v))
	}
	b = append(b, 0x80|byte(depth-1))
	for _, v := range g.c.palette {
		b = append(b, byte(v>>16), byte(v>>8), byte(v))
	}
	b = append(b, make([]byte, 3*(1<<depth-len(g.c.palette)))...)
	width := max(depth, 2)
	if _, err := g.w.Write(append(b, byte(width))); err != nil {
		return err
	}
	blocks := &blockWriter{w: g.w}
	zw := lzw.NewWriter(blocks, lzw.LSB, width)
	_, err := zw.Write(g.c.pix)
	return errors.Join(err, zw.Close(), blocks.end())
}

func (g *gifSink) finish() (string, error) {
	err := g.w.WriteByte(0x3b)
	size := binary.LittleEndian.AppendUint16(nil, uint16(g.canvas.Rect.Dx()))
	size = binary.LittleEndian.AppendUint16(size, uint16(g.canvas.Rect.Dy()))
	if err = errors.Join(err, g.w.Flush()); err == nil {
		_, err = g.out.WriteAt(size, gifSizeAt)
	}
	if err != nil {
		g.abandon()
		return "", errs.New(errs.Resource, "cannot write %s: %w", g.out.path, plainError(err))
	}
	return g.out.path, g.out.commit()
}

func (g *gifSink) abandon() { g.out.abandon() }

// blockWriter writes blocks of up to 255 bytes, each after its length.
type blockWriter struct {
	w   io.Writer
	buf [256]byte
	n   int
}

func (b *blockWriter) WriteByte(c byte) error {
	b.n++
	b.buf[b.n] = c
	if b.n < 255 {
		return nil
	}
	return b.flush()
}

// Write takes anything, as compress/lzw asks of its writer.
func (b *blockWriter) Write(p []byte) (int, error) {
	for i, c := range p {
		if err := b.WriteByte(c); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// Flush leaves a block open until it is full; compress/lzw calls it at the end.
func (b *blockWriter) Flush() error { return nil }

func (b *blockWriter) flush() error {
	b.buf[0] = byte(b.n)
	_, err := b.w.Write(b.buf[:b.n+1])
	b.n = 0
	return err
}

func (b *blockWriter) end() error {
	if b.n > 0 {
		if err := b.flush(); err != nil {
			return err
		}
	}
	return b.flush() // an empty block ends the picture
}
