package vnc

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// updateOf makes an update of one rectangle.
func updateOf(r image.Rectangle, enc Encoding, data ...byte) []byte {
	b := []byte{srvUpdate, 0, 0, 1}
	for _, v := range [...]int{r.Min.X, r.Min.Y, r.Dx(), r.Dy()} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(enc)), data...)
}

func decodeAll(t *testing.T, w, h int, stream ...[]byte) (*decoder, error) {
	t.Helper()
	d, err := newDecoder(bufio.NewReader(bytes.NewReader(bytes.Join(stream, nil))), w, h, false)
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := d.next(); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return d, err
		}
	}
}

func deflate(t *testing.T, zw *zlib.Writer, buf *bytes.Buffer, data []byte) []byte {
	t.Helper()
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Flush(); err != nil {
		t.Fatal(err)
	}
	out := bytes.Clone(buf.Bytes())
	buf.Reset()
	return out
}

func compact(n int) []byte {
	b := []byte{byte(n & 0x7f)}
	if n > 0x7f {
		b[0] |= 0x80
		b = append(b, byte(n>>7&0x7f))
	}
	if n > 0x3fff {
		b[1] |= 0x80
		b = append(b, byte(n>>14))
	}
	return b
}

func TestTightKinds(t *testing.T) {
	var buf bytes.Buffer
	zw := zlib.NewWriter(&buf)
	area := image.Rect(2, 1, 6, 5)
	copied, mono := make([]byte, 4*4*3), []byte{0x80, 0x40, 0x20, 0x10}
	grad := make([]byte, 4*4*3) // all differences 0 but the first: one colour
	for i := range copied {
		copied[i] = byte(i * 5)
	}
	copy(grad, []byte{10, 20, 30})
	index := make([]byte, 16)
	index[15] = 2
	part := func(control []byte, data []byte) []byte {
		z := deflate(t, zw, &buf, data)
		return append(append(control, compact(len(z))...), z...)
	}
	var pic bytes.Buffer
	light := image.NewGray(image.Rect(0, 0, 4, 4))
	for i := range light.Pix {
		light.Pix[i] = 200
	}
	if err := jpeg.Encode(&pic, light, nil); err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	d, err := newDecoder(bufio.NewReader(&stream), 8, 8, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
		at   image.Point
		want color.RGBA
	}{
		{"fill", []byte{0x80, 1, 2, 3}, image.Pt(5, 4), color.RGBA{1, 2, 3, 255}},
		{"copy", part([]byte{0x00}, copied), image.Pt(3, 1), color.RGBA{15, 20, 25, 255}},
		{"palette of two", append([]byte{0x40, 1, 1, 7, 7, 7, 9, 9, 9}, mono...), image.Pt(3, 2), color.RGBA{9, 9, 9, 255}},
		{"palette", part([]byte{0x40, 1, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3}, index), image.Pt(5, 4), color.RGBA{3, 3, 3, 255}},
		{"gradient", part([]byte{0x40, 2}, grad), image.Pt(5, 4), color.RGBA{10, 20, 30, 255}},
		{"jpeg", append(append([]byte{0x90}, compact(pic.Len())...), pic.Bytes()...), image.Pt(4, 4), color.RGBA{200, 200, 200, 255}},
	} {
		stream.Write(updateOf(area, EncTight, c.data...))
		if _, err := d.next(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := d.screen.RGBAAt(c.at.X, c.at.Y); got != c.want || d.screen.RGBAAt(1, 1) != (color.RGBA{0, 0, 0, 255}) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestCopyRectOverlaps(t *testing.T) {
	column := rawRect(image.Rect(0, 0, 1, 8), 0)
	for y := range 8 {
		column[16+4*y] = byte(y)
	}
	d, err := decodeAll(t, 8, 8, column, updateOf(image.Rect(0, 2, 1, 8), EncCopyRect, 0, 0, 0, 0), updateOf(image.Rect(0, 0, 1, 4), EncCopyRect, 0, 0, 0, 1))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	for y := range 8 {
		got = append(got, d.screen.RGBAAt(0, y).B)
	}
	if want := []byte{1, 0, 1, 2, 2, 3, 4, 5}; !bytes.Equal(got, want) {
		t.Errorf("column %v, want %v", got, want)
	}
}

// TestPseudoEncodings: what carries no pixels is passed over in the right length.
func TestPseudoEncodings(t *testing.T) {
	small := image.Rect(0, 0, 9, 2)
	name := append([]byte{0, 0, 0, 3}, "abc"...)
	d, err := decodeAll(t, 4, 4,
		updateOf(small, EncCursor, make([]byte, 9*2*4+2*2)...), updateOf(small, EncXCursor, make([]byte, 6+2*2*2)...),
		updateOf(image.Rectangle{}, EncXCursor), updateOf(small, EncPointerPos), updateOf(small, EncLEDState, 1),
		updateOf(small, EncDesktopName, name...), updateOf(image.Rect(0, 0, 7, 6), EncExtendedDesktopSize, append([]byte{1, 0, 0, 0}, make([]byte, 16)...)...),
		updateOf(image.Rect(0, 1, 99, 99), EncExtendedDesktopSize, 0, 0, 0, 0), // refused
		[]byte{srvUpdate, 0, 0xff, 0xff}, updateOf(small, EncLastRect)[4:],
		[]byte{srvColourMap, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3}, []byte{srvBell}, []byte{srvCut, 0, 0, 0, 0, 0, 0, 1, 'x'},
		[]byte{srvCut, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe, 1, 2}, []byte{srvEndContinuous, msgFence, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1},
		[]byte{msgXVP, 0, 1, 1, msgQEMU, 1, 0, 1, msgQEMU, 1, 0, 2, 0, 0, 0, 1, 7},
		rawRect(image.Rect(6, 5, 7, 6), 5))
	if err != nil {
		t.Fatal(err)
	}
	if d.screen.Rect.Max != image.Pt(7, 6) || d.screen.RGBAAt(6, 5).R != 5 {
		t.Errorf("screen %v, last pixel %v", d.screen.Rect, d.screen.RGBAAt(6, 5))
	}
}

func TestDecoderRefuses(t *testing.T) {
	one := image.Rect(0, 0, 1, 1)
	for name, b := range map[string][]byte{
		"outside": rawRect(image.Rect(3, 3, 5, 5), 0), "copy from outside": updateOf(one, EncCopyRect, 0, 9, 0, 0),
		"huge": appendSizeUpdate(nil, 60000, 1), "zlib length": updateOf(one, EncZlib, 0xff, 0xff, 0xff, 0xff),
		"no zlib": updateOf(one, EncZlib, 0, 0, 0, 4, 1, 2, 3, 4), "tight kind": updateOf(one, EncTight, 0xf0),
		"tight filter": updateOf(one, EncTight, 0x40, 9), "tight picture": updateOf(one, EncTight, 0x90, 2, 0, 0),
		"tight colour": updateOf(one, EncTight, 0x40, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3), "audio": {msgQEMU, 2, 0, 0}, "short": {srvUpdate, 0, 0, 1, 0},
	} {
		if _, err := decodeAll(t, 4, 4, b); err == nil {
			t.Errorf("%s: no complaint", name)
		}
	}
}

func FuzzDecoder(f *testing.F) {
	one := image.Rect(0, 0, 3, 3)
	f.Add(rawRect(one, 9))
	f.Add(bytes.Join([][]byte{appendSizeUpdate(nil, 5, 5), updateOf(one, EncTight, 0x80, 1, 2, 3), updateOf(one, EncTight, 0x40, 1, 1, 0, 0, 0, 1, 1, 1, 1, 2, 3)}, nil))
	f.Add(updateOf(one, EncZlib, 0, 0, 0, 9, 0x78, 0x9c, 1, 2, 3, 4, 5, 6, 7))
	f.Add(updateOf(one, EncCursor, make([]byte, 42)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		for _, discard := range []bool{false, true} {
			d, err := newDecoder(bufio.NewReader(bytes.NewReader(stream)), 8, 8, discard)
			d.limit = 1 << 20
			for err == nil {
				_, err = d.next()
			}
			if d.screen.Rect.Dx()*d.screen.Rect.Dy() > 1<<20 {
				t.Errorf("screen %v", d.screen.Rect)
			}
		}
	})
}

// TestQEMUEncodings compares what QEMU sends in each encoding with Raw.
func TestQEMUEncodings(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "vnc")
	cmd := exec.Command("qemu-system-x86_64", "-display", "none", "-vnc", "unix:"+socket+",lossy=on", "-M", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-vga", "std", "-boot", "menu=on,splash-time=60000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var raw *Client
	eventually(t, func() bool {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return false
		}
		raw, err = NewClient(t.Context(), conn, Options{Encodings: []Encoding{EncRaw, EncDesktopSize}})
		return err == nil
	})
	defer raw.Close()
	eventually(t, func() bool { return lit(capture(t, raw)) > 500 }) // the firmware has written
	for _, enc := range []Encoding{EncTight, EncZlib, EncRaw} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewClient(t.Context(), conn, Options{Encodings: []Encoding{enc, EncCopyRect, EncDesktopSize, EncExtendedDesktopSize, EncLEDState, EncCursor, EncLastRect, EncPointerTypeChange, EncExtendedKey}})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { // the cursor blinks and the firmware writes
			return bytes.Equal(capture(t, c).Pix, capture(t, raw).Pix)
		})
		if used := c.dec.inflate != nil; used != (enc != EncRaw) {
			t.Errorf("encoding %d: compressed %t", enc, used)
		}
		_ = c.Close()
	}
}

func capture(t *testing.T, c *Client) *image.RGBA {
	t.Helper()
	if err := c.conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	m, err := c.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func lit(m *image.RGBA) (n int) {
	for i := 0; i < len(m.Pix); i += bpp {
		if m.Pix[i]|m.Pix[i+1]|m.Pix[i+2] != 0 {
			n++
		}
	}
	return n
}
