package vnc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"io"
	"net"
	"slices"
	"sync"
	"time"
)

// Screen is an image that is shown by any number of servers at once. It is
// safe for all goroutines.
type Screen struct {
	mu      sync.Mutex // guards the fields below
	img     *image.RGBA
	version uint64
	changed chan struct{} // closed at the next change
}

// NewScreen makes a black screen.
func NewScreen(w, h int) (*Screen, error) {
	if err := checkSize(w, h, MaxPixels); err != nil {
		return nil, err
	}
	return &Screen{img: newScreen(w, h), version: 1, changed: make(chan struct{})}, nil
}

// Draw lets fn paint; fn must not keep the image.
func (s *Screen) Draw(fn func(*image.RGBA)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.img)
	s.touch()
}

// Show replaces the content, and the size if m has another.
func (s *Screen) Show(m image.Image) error {
	b := m.Bounds()
	if err := checkSize(b.Dx(), b.Dy(), MaxPixels); err != nil {
		return err
	}
	img := newScreen(b.Dx(), b.Dy())
	draw.Draw(img, img.Rect, m, b.Min, draw.Over)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.img = img
	s.touch()
	return nil
}

// Paint replaces area with that of m, which has the same size as the screen.
func (s *Screen) Paint(m *image.RGBA, area image.Rectangle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.Rect != s.img.Rect {
		return fmt.Errorf("a picture of %v is painted on a screen of %v", m.Rect, s.img.Rect)
	}
	draw.Draw(s.img, area, m, area.Min, draw.Src)
	s.touch()
	return nil
}

func (s *Screen) touch() {
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

// copyTo brings dst up to date and returns it, the version, and what to wait
// for until the next one.
func (s *Screen) copyTo(dst *image.RGBA) (*image.RGBA, uint64, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if dst == nil || dst.Rect != s.img.Rect {
		dst = image.NewRGBA(s.img.Rect)
	}
	copy(dst.Pix, s.img.Pix)
	return dst, s.version, s.changed
}

// Serve speaks RFB 3.3, 3.7 or 3.8 on conn, without authentication: it shows
// screen and gives what the client does to onInput (which may be nil). It
// returns when the client leaves (nil), ctx ends, or the client breaks the
// rules; conn is closed then. Pixel formats with a colour map are refused.
func Serve(ctx context.Context, conn net.Conn, screen *Screen, name string, onInput func(Input)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s := &served{conn: conn, r: bufio.NewReader(conn), screen: screen, format: StandardFormat(),
		wake: make(chan struct{}, 1), onInput: onInput}
	if err := s.handshake(name); err != nil {
		_ = conn.Close()
		return errors.Join(ctx.Err(), fmt.Errorf("VNC handshake: %w", err))
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.updates(ctx) })
	err := s.messages()
	cancel()
	_ = conn.Close()
	wg.Wait()
	if ended(err) {
		return nil
	}
	return err
}

// served is one client of Serve.
type served struct {
	conn    net.Conn
	r       *bufio.Reader
	screen  *Screen
	onInput func(Input)
	wake    chan struct{} // a request came

	mu        sync.Mutex // guards the fields below
	format    PixelFormat
	canResize bool
	view      image.Rectangle // what the client knows of the screen's size
	asked     bool            // an update is wanted
	whole     bool            // and not only what changed
}

func (s *served) handshake(name string) error {
	if err := s.conn.SetDeadline(time.Now().Add(handshakeTime)); err != nil {
		return err
	}
	if _, err := io.WriteString(s.conn, version38); err != nil {
		return err
	}
	b := make([]byte, banner)
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	minor, err := parseVersion(b)
	if err != nil {
		return err
	}
	if err := s.security(minor); err != nil {
		return err
	}
	if _, err := s.r.ReadByte(); err != nil {
		return err
	}
	img, _, _ := s.screen.copyTo(nil)
	s.view = img.Rect
	init := binary.BigEndian.AppendUint16(nil, uint16(img.Rect.Dx()))
	init = binary.BigEndian.AppendUint16(init, uint16(img.Rect.Dy()))
	init = StandardFormat().append(init)
	init = binary.BigEndian.AppendUint32(init, uint32(len(name)))
	if _, err := s.conn.Write(append(init, name...)); err != nil {
		return err
	}
	return s.conn.SetDeadline(time.Time{})
}

func (s *served) security(minor int) error {
	if minor == 3 {
		_, err := s.conn.Write([]byte{0, 0, 0, secNone})
		return err
	}
	if _, err := s.conn.Write([]byte{1, secNone}); err != nil {
		return err
	}
	kind, err := s.r.ReadByte()
	if err != nil {
		return err
	}
	if kind != secNone {
		return fmt.Errorf("client chose security type %d, which was not offered", kind)
	}
	if minor == 8 {
		_, err = s.conn.Write([]byte{0, 0, 0, 0})
	}
	return err
}

func (s *served) messages() error {
	var buf []byte
	for {
		m, err := readClientMessage(s.r, buf)
		if err != nil {
			return err
		}
		buf = m.raw
		if err := s.message(&m); err != nil {
			return err
		}
		if in := m.input(); in != nil && s.onInput != nil {
			s.onInput(in)
		}
		if _, err := io.CopyN(io.Discard, s.r, m.rest); err != nil {
			return err
		}
	}
}

func (s *served) message(m *clientMessage) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch b := m.raw; m.kind() {
	case msgSetPixelFormat:
		s.format = parsePixelFormat(b[4:])
		if !s.format.TrueColour || !slices.Contains([]uint8{8, 16, 32}, s.format.BPP) {
			return fmt.Errorf("client wants a pixel format of %d bits, true colour %t", s.format.BPP, s.format.TrueColour)
		}
	case msgSetEncodings:
		size := EncDesktopSize
		want := binary.BigEndian.AppendUint32(nil, uint32(size))
		for e := range slices.Chunk(b[4:], 4) {
			s.canResize = s.canResize || bytes.Equal(e, want)
		}
	case msgUpdateRequest:
		s.asked = true
		s.whole = s.whole || b[1] == 0
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

// updates answers requests until ctx ends or the client is gone.
func (s *served) updates(ctx context.Context) {
	var sent, img *image.RGBA
	var version uint64
	for {
		var v uint64
		var changed <-chan struct{}
		img, v, changed = s.screen.copyTo(img)
		if b, ok := s.compose(sent, img, v != version); ok {
			if _, err := s.conn.Write(b); err != nil {
				return
			}
			sent, img, version = img, sent, v
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-changed:
		}
	}
}

// compose makes the update that is wanted now, if one is.
func (s *served) compose(sent, img *image.RGBA, fresh bool) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.asked || !s.whole && !fresh {
		return nil, false
	}
	b := []byte{srvUpdate, 0, 0, 0}
	n := 0
	if s.canResize && s.view != img.Rect {
		b, n = appendSizeUpdate(nil, img.Rect.Dx(), img.Rect.Dy()), 1
		s.view = img.Rect
	}
	bands := []image.Rectangle{img.Rect}
	if sent != nil && sent.Rect == img.Rect && !s.whole {
		bands = changedBands(sent, img)
	}
	s.asked, s.whole = false, false
	for _, r := range bands {
		if r = r.Intersect(s.view); !r.Empty() {
			b = s.format.appendRaw(b, img, r)
			n++
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	return b, true
}

// bandHeight is the height in pixels of the areas that are compared.
const bandHeight = 16

func changedBands(old, img *image.RGBA) []image.Rectangle {
	var bands []image.Rectangle
	for y := 0; y < img.Rect.Dy(); y += bandHeight {
		r := image.Rect(0, y, img.Rect.Dx(), min(y+bandHeight, img.Rect.Dy()))
		from, to := img.PixOffset(0, y), r.Max.Y*img.Stride
		if !bytes.Equal(old.Pix[from:to], img.Pix[from:to]) {
			bands = append(bands, r)
		}
	}
	return bands
}

// appendRaw adds r of img as a rectangle in Raw encoding.
func (f PixelFormat) appendRaw(b []byte, img *image.RGBA, r image.Rectangle) []byte {
	for _, v := range [...]int{r.Min.X, r.Min.Y, r.Dx(), r.Dy(), 0, int(EncRaw)} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row := img.Pix[img.PixOffset(r.Min.X, y):][:r.Dx()*bpp]
		for ; len(row) > 0; row = row[bpp:] {
			b = f.appendPixel(b, row[0], row[1], row[2])
		}
	}
	return b
}

func (f PixelFormat) appendPixel(b []byte, red, green, blue uint8) []byte {
	v := uint32(red)*uint32(f.RedMax)/255<<(f.RedShift&31) |
		uint32(green)*uint32(f.GreenMax)/255<<(f.GreenShift&31) |
		uint32(blue)*uint32(f.BlueMax)/255<<(f.BlueShift&31)
	switch {
	case f.BPP == 8:
		return append(b, uint8(v))
	case f.BPP == 16 && f.BigEndian:
		return binary.BigEndian.AppendUint16(b, uint16(v))
	case f.BPP == 16:
		return binary.LittleEndian.AppendUint16(b, uint16(v))
	case f.BigEndian:
		return binary.BigEndian.AppendUint32(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, v)
}
