package vnc

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"strings"
	"testing"
	"time"
)

// rawRect is an update of one rectangle in Raw encoding, all of one byte.
func rawRect(r image.Rectangle, fill byte) []byte {
	b := []byte{srvUpdate, 0, 0, 1}
	for _, v := range [...]int{r.Min.X, r.Min.Y, r.Dx(), r.Dy(), 0, 0} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return append(b, bytes.Repeat([]byte{fill}, r.Dx()*r.Dy()*bpp)...)
}

func zip(t testing.TB, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	if _, err := io.WriteString(zw, text); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFBFormat(t *testing.T) {
	var out bytes.Buffer
	w, err := NewFBWriter(&out, 3, 2)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.WriteChunk(7, []byte{srvBell}), w.Mark(1500*time.Millisecond), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(zr)
	want := "0 16\r\n\x00\x00\x00\x01\x00\x00\x00\x00\x00\x03\x00\x02\xff\xff\xff\x21\r\n7 1\r\n\x02\r\n1500000000 4\r\n\x00\x00\x00\x00\r\n"
	if err != nil || string(got) != want {
		t.Errorf("%v, wrote %q", err, got)
	}
}

// TestFBForeign reads chunks that end anywhere, from a recording that does not
// say how large the screen is.
func TestFBForeign(t *testing.T) {
	stream := string(append(append(rawRect(image.Rect(0, 0, 4, 3), 1), srvBell), rawRect(image.Rect(1, 1, 6, 2), 2)...))
	var text strings.Builder
	for i := 0; i < len(stream); i += 7 {
		part := stream[i:min(i+7, len(stream))]
		fmt.Fprintf(&text, "%d %d\r\n%s\r\n", i*10, len(part), part)
	}
	r, err := NewFBReader(bytes.NewReader(zip(t, text.String())))
	if err != nil {
		t.Fatal(err)
	}
	var sizes []string
	for f, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, fmt.Sprint(f.Offset.Nanoseconds(), f.Image.Rect.Max, f.Image.RGBAAt(1, 1)))
	}
	if want := "[630 (4,3) {1 1 1 255} 980 (6,3) {2 2 2 255}]"; fmt.Sprint(sizes) != want {
		t.Errorf("frames %v, want %v", sizes, want)
	}
}

func TestFBCutOff(t *testing.T) {
	var out bytes.Buffer
	w, err := NewFBWriter(&out, 8, 8)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.WriteChunk(5, rawRect(image.Rect(0, 0, 8, 8), 3)), w.Flush(), w.WriteChunk(9, rawRect(image.Rect(0, 0, 8, 8), 4)[:40]), w.Flush())
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewFBReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	frames := 0
	var last error
	for f, err := range r.All() {
		if last = err; err == nil {
			frames++
			if f.Update.Rects > 0 && f.Image.RGBAAt(7, 7).R != 3 {
				t.Error("wrong picture")
			}
		}
	}
	if frames != 2 || !errors.Is(last, io.ErrUnexpectedEOF) {
		t.Errorf("%d frames, then %v", frames, last)
	}
}

func TestFBHostile(t *testing.T) {
	size := func(w, h int) string { return "0 16\r\n" + string(appendSizeUpdate(nil, w, h)) + "\r\n" }
	for name, text := range map[string]string{
		"huge screen": size(65535, 65535), "large screen": size(16384, 16384), "far rectangle": "0 20\r\n" + string(rawRect(image.Rect(65535, 65535, 65536, 65536), 0)) + "\r\n",
		"head": strings.Repeat("1", 100), "negative": "0 -1\r\n", "words": "a b\r\n", "one number": "17\r\n", "no end": "0 1\r\n\x02\x02\x02",
		"message": "0 1\r\n\x63\r\n", "encoding": "0 16\r\n\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x63\r\n",
	} {
		r, err := NewFBReader(bytes.NewReader(zip(t, text)))
		for err == nil {
			_, err = r.Next()
		}
		if errors.Is(err, io.EOF) {
			t.Errorf("%s: no complaint", name)
		}
	}
	if _, err := NewFBReader(strings.NewReader("no gzip")); err == nil {
		t.Error("what is no gzip file is taken for one")
	}
}

func FuzzFB(f *testing.F) {
	f.Add([]byte("0 16\r\n" + string(appendSizeUpdate(nil, 9, 9)) + "\r\n5 80\r\n" + string(rawRect(image.Rect(1, 1, 5, 5), 7)) + "\r\n"))
	f.Add([]byte("0 1\r\n\x02\r\n1 10\r\n\x03\x00\x00\x00\x00\x00\x00\x02hi\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := NewFBReader(bytes.NewReader(zip(t, string(text))))
		if err == nil {
			r.dec.limit = 1 << 20 // the fuzzer's machine is small
		}
		for err == nil {
			var frame Frame
			if frame, err = r.Next(); err == nil && len(frame.Image.Pix) != frame.Image.Rect.Dx()*frame.Image.Rect.Dy()*bpp {
				t.Errorf("image of %d bytes for %v", len(frame.Image.Pix), frame.Image.Rect)
			}
		}
	})
}
