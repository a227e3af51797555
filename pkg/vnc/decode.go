package vnc

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"image"
	"io"
)

// Message types, server to client (RFC 6143 §7.6 and extensions).
const (
	srvUpdate        = 0
	srvColourMap     = 1
	srvBell          = 2
	srvCut           = 3
	srvEndContinuous = 150
)

// ServerMessage is what a server sent: Update, Bell, CutText, or nil for
// messages without a meaning here.
type ServerMessage interface{ serverMessage() }

// Update is a change of the screen that has been applied.
type Update struct {
	Rects   int             // with pixels in them
	Area    image.Rectangle // that encloses them
	Resized bool
}

// Bell is the guest's beep.
type Bell struct{}

func (Update) serverMessage()  {}
func (Bell) serverMessage()    {}
func (CutText) serverMessage() {}

// decoder reads the server's side of a connection in the standard pixel
// format and keeps the screen.
type decoder struct {
	r       *bufio.Reader
	screen  *image.RGBA
	limit   int    // pixels
	discard bool   // keep no pixels, only the size
	grow    bool   // let rectangles outside the screen enlarge it
	line    []byte // scratch
	inflate *inflaters
}

func newDecoder(r *bufio.Reader, w, h int, discard bool) (*decoder, error) {
	d := &decoder{r: r, limit: MaxPixels, discard: discard}
	return d, d.resize(w, h)
}

func (d *decoder) size() (w, h int) { return d.screen.Rect.Dx(), d.screen.Rect.Dy() }

// resize makes the screen w x h and keeps what fits.
func (d *decoder) resize(w, h int) error {
	if err := checkSize(w, h, d.limit); err != nil {
		return err
	}
	if d.discard {
		d.screen = &image.RGBA{Rect: image.Rect(0, 0, w, h)}
		return nil
	}
	old := d.screen
	d.screen = newScreen(w, h)
	if old == nil {
		return nil
	}
	keep := old.Rect.Intersect(d.screen.Rect)
	for y := keep.Min.Y; y < keep.Max.Y; y++ {
		copy(d.screen.Pix[y*d.screen.Stride:], old.Pix[y*old.Stride:][:keep.Dx()*bpp])
	}
	return nil
}

// next reads one message.
func (d *decoder) next() (ServerMessage, error) {
	kind, err := d.r.ReadByte()
	if err != nil {
		return nil, err
	}
	switch kind {
	case srvUpdate:
		u, err := d.update()
		return u, noEOF(err)
	case srvColourMap:
		return nil, d.skipColourMap()
	case srvBell:
		return Bell{}, nil
	case srvCut:
		return d.cut()
	case srvEndContinuous:
		return nil, nil
	case msgFence:
		return nil, d.skipFence()
	case msgXVP:
		return nil, d.skip(3)
	case msgQEMU:
		return nil, d.skipAudio()
	}
	return nil, fmt.Errorf("server sent message type %d, which is not known", kind)
}

func (d *decoder) update() (Update, error) {
	head, err := d.bytes(3)
	if err != nil {
		return Update{}, err
	}
	var u Update
	for n := int(binary.BigEndian.Uint16(head[1:])); n > 0; n-- {
		last, err := d.rect(&u)
		if err != nil || last {
			return u, err
		}
	}
	return u, nil
}

// rect reads one rectangle and tells whether it ends the update early.
func (d *decoder) rect(u *Update) (last bool, err error) {
	head, err := d.bytes(12)
	if err != nil {
		return false, err
	}
	x, y := int(binary.BigEndian.Uint16(head)), int(binary.BigEndian.Uint16(head[2:]))
	w, h := int(binary.BigEndian.Uint16(head[4:])), int(binary.BigEndian.Uint16(head[6:]))
	enc := Encoding(binary.BigEndian.Uint32(head[8:]))
	area := image.Rect(x, y, x+w, y+h)
	switch enc {
	case EncRaw, EncCopyRect, EncZlib, EncTight:
		return false, d.pixels(u, enc, area)
	case EncDesktopSize:
		u.Resized = true
		return false, d.resize(w, h)
	case EncExtendedDesktopSize:
		return false, d.extendedSize(u, y, w, h)
	case EncLastRect:
		return true, nil
	}
	return false, d.skipPseudo(enc, w, h)
}

func (d *decoder) pixels(u *Update, enc Encoding, area image.Rectangle) error {
	if err := d.fit(area); err != nil {
		return err
	}
	u.Rects++
	u.Area = u.Area.Union(area)
	switch enc {
	case EncRaw:
		return d.raw(area)
	case EncCopyRect:
		return d.copyRect(area)
	}
	if d.discard {
		return fmt.Errorf("server used encoding %d, which cannot be passed over", enc)
	}
	if enc == EncZlib {
		return d.zlib(area)
	}
	return d.tight(area)
}

// fit checks that area lies on the screen.
func (d *decoder) fit(area image.Rectangle) error {
	if area.In(d.screen.Rect) {
		return nil
	}
	if !d.grow {
		return fmt.Errorf("server sent a rectangle %v outside the screen %v", area, d.screen.Rect)
	}
	all := d.screen.Rect.Union(area)
	return d.resize(all.Max.X, all.Max.Y)
}

func (d *decoder) raw(area image.Rectangle) error {
	if d.discard {
		return d.skip(int64(area.Dx()) * int64(area.Dy()) * bpp)
	}
	return d.rawFrom(d.r, area)
}

// rawFrom paints area with pixels in the standard format.
func (d *decoder) rawFrom(r io.Reader, area image.Rectangle) error {
	n := area.Dx() * bpp
	if n == 0 {
		return nil
	}
	for y := area.Min.Y; y < area.Max.Y; y++ {
		row := d.screen.Pix[d.screen.PixOffset(area.Min.X, y):][:n]
		if _, err := io.ReadFull(r, row); err != nil {
			return err
		}
		for i := 0; i < n; i += bpp {
			row[i], row[i+2], row[i+3] = row[i+2], row[i], alpha
		}
	}
	return nil
}

func (d *decoder) copyRect(area image.Rectangle) error {
	b, err := d.bytes(4)
	if err != nil {
		return err
	}
	from := image.Pt(int(binary.BigEndian.Uint16(b)), int(binary.BigEndian.Uint16(b[2:])))
	src := area.Sub(area.Min).Add(from)
	if !src.In(d.screen.Rect) {
		return fmt.Errorf("server copies from %v outside the screen %v", src, d.screen.Rect)
	}
	if d.discard || area.Empty() {
		return nil
	}
	n := area.Dx() * bpp
	for i := range area.Dy() {
		if from.Y < area.Min.Y { // the two may overlap: start at the far end
			i = area.Dy() - 1 - i
		}
		copy(d.screen.Pix[d.screen.PixOffset(area.Min.X, area.Min.Y+i):][:n],
			d.screen.Pix[d.screen.PixOffset(from.X, from.Y+i):][:n])
	}
	return nil
}

func (d *decoder) extendedSize(u *Update, status, w, h int) error {
	b, err := d.bytes(4)
	if err != nil {
		return err
	}
	if err := d.skip(16 * int64(b[0])); err != nil || status != 0 {
		return err
	}
	if ow, oh := d.size(); ow == w && oh == h {
		return nil
	}
	u.Resized = true
	return d.resize(w, h)
}

// skipPseudo passes over rectangles that carry no screen content.
func (d *decoder) skipPseudo(enc Encoding, w, h int) error {
	area, mask := int64(w)*int64(h), int64((w+7)/8)*int64(h)
	switch enc {
	case EncCursor:
		return d.skip(area*bpp + mask)
	case EncXCursor:
		if area == 0 {
			return nil
		}
		return d.skip(6 + 2*mask)
	case EncPointerPos, EncPointerTypeChange, EncExtendedKey, EncAudio, encExtendedMouse:
		return nil
	case EncLEDState:
		return d.skip(1)
	case EncDesktopName:
		b, err := d.bytes(4)
		if err != nil {
			return err
		}
		return d.skip(int64(binary.BigEndian.Uint32(b)))
	}
	return fmt.Errorf("server used encoding %d, which is not known", enc)
}

func (d *decoder) cut() (ServerMessage, error) {
	b, err := d.bytes(7)
	if err != nil {
		return nil, noEOF(err)
	}
	n := int64(int32(binary.BigEndian.Uint32(b[3:])))
	if n < 0 { // extended clipboard
		return nil, d.skip(-n)
	}
	text := make([]byte, min(n, MaxCut))
	if _, err := io.ReadFull(d.r, text); err != nil {
		return nil, noEOF(err)
	}
	c := cutText(text)
	c.Truncated = n > MaxCut
	return c, d.skip(n - int64(len(text)))
}

func (d *decoder) skipColourMap() error {
	b, err := d.bytes(5)
	if err != nil {
		return noEOF(err)
	}
	return d.skip(6 * int64(binary.BigEndian.Uint16(b[3:])))
}

func (d *decoder) skipFence() error {
	b, err := d.bytes(8)
	if err != nil {
		return noEOF(err)
	}
	return d.skip(int64(b[7]))
}

func (d *decoder) skipAudio() error {
	b, err := d.bytes(3)
	if err != nil {
		return noEOF(err)
	}
	if b[0] != qemuAudio {
		return fmt.Errorf("server sent QEMU message %d, which is not known", b[0])
	}
	if binary.BigEndian.Uint16(b[1:]) != 2 { // begin or end of the stream
		return nil
	}
	if b, err = d.bytes(4); err != nil {
		return noEOF(err)
	}
	return d.skip(int64(binary.BigEndian.Uint32(b)))
}

// bytes reads n bytes into scratch memory; n is small and trusted.
func (d *decoder) bytes(n int) ([]byte, error) {
	if cap(d.line) < n {
		d.line = make([]byte, n)
	}
	b := d.line[:n]
	_, err := io.ReadFull(d.r, b)
	return b, err
}

func (d *decoder) skip(n int64) error {
	_, err := io.CopyN(io.Discard, d.r, n)
	return noEOF(err)
}
