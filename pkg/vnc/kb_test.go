package vnc

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func readKB(r io.Reader) (lines []KBLine, bad []error, err error) {
	k := NewKBReader(r)
	for {
		l, err := k.Next()
		switch {
		case err == nil:
			lines = append(lines, l)
		case errors.Is(err, ErrKBLine):
			bad = append(bad, err)
		case errors.Is(err, io.EOF):
			return lines, bad, nil
		default:
			return lines, bad, err
		}
	}
}

func TestKBReader(t *testing.T) {
	lines, bad, err := readKB(strings.NewReader(`# a comment: ignored
#: a note
no colon

1500000:KeyEvent,true,Shift_L
1.5s:KeyEvent,false,U+4E2D
0:PointerEvent,255,65535,0
0:LoadFile,a/b:c.kb
2s:WaitForIt,10s,x.png
7:ClickItEvent,1000,iVBOR:w0=
x:KeyEvent,true,a
-5:KeyEvent,true,a
0:KeyEvent,maybe,a
0:KeyEvent,true,NoSuchKey
0:KeyEvent,true
0:PointerEvent,256,0,0
0:PointerEvent,1,2
0:LoadFile,
0:WaitForIt,10s
0:Jump,3
0:KeyEvent,true,a` + "\r"))
	want := []KBLine{
		{0, Note{"a note"}, 2},
		{1500 * time.Microsecond, KeyEvent{true, 0xffe1}, 5},
		{1500 * time.Millisecond, KeyEvent{false, 0x1004e2d}, 6},
		{0, PointerEvent{255, 65535, 0}, 7},
		{0, LoadFile{"a/b:c.kb"}, 8},
		{2 * time.Second, WaitForIt{10 * time.Second, "x.png"}, 9},
		{7, ClickIt{1000, "iVBOR:w0="}, 10},
		{0, KeyEvent{true, 'a'}, 21},
	}
	if err != nil || len(lines) != len(want) || len(bad) != 10 {
		t.Fatalf("%d events, %d bad lines (%v), %v", len(lines), len(bad), bad, err)
	}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("event %d: %+v, want %+v", i, lines[i], want[i])
		}
	}
	if !strings.Contains(bad[0].Error(), "line 11") {
		t.Errorf("bad line is %v", bad[0])
	}
}

func TestKBLongLine(t *testing.T) {
	long := "0:WaitForIt,1s," + strings.Repeat("A", 1<<20)
	lines, _, err := readKB(strings.NewReader(long + "\n0:KeyEvent,true,b\n"))
	if err != nil || len(lines) != 2 || len(lines[0].Event.(WaitForIt).Image) != 1<<20 {
		t.Errorf("%d events: %v", len(lines), err)
	}
	endless := io.MultiReader(strings.NewReader("0:KeyEvent,"), neverEnding('x'))
	if _, _, err := readKB(endless); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("endless line: %v", err)
	}
}

type neverEnding byte

func (b neverEnding) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}

func TestKBWriter(t *testing.T) {
	var out bytes.Buffer
	start := time.Now()
	w := NewKBWriter(&out, start)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	err := errors.Join(w.Write(at(5), KeyEvent{true, 'A'}), w.Write(at(3), PointerEvent{1, 2, 3}), // the clock does not run back
		w.Note("two\nlines"), w.Write(at(time.Second), KeyEvent{false, 0x1004e2d}))
	want := "5:KeyEvent,true,A\n0:PointerEvent,1,2,3\n#: two lines\n999999995:KeyEvent,false,U+4E2D\n"
	if err != nil || out.String() != want {
		t.Errorf("%v, wrote\n%s", err, out.String())
	}
}

func FuzzKB(f *testing.F) {
	f.Add([]byte("0:KeyEvent,true,a\n1s:PointerEvent,1,2,3\n#: n\n0:LoadFile,x\n5:WaitForIt,1s,x\n5:ClickItEvent,2,y"))
	f.Add([]byte("9223372036854775807:KeyEvent,t,0x1\r\n\x00:\n::::"))
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, _, err := readKB(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err) // data is shorter than a line may be
		}
		for _, l := range lines {
			if _, note := l.Event.(Note); note {
				continue
			}
			back, err := ParseKBEvent(FormatKBEvent(l.Event))
			if err != nil || back != l.Event || l.Delta < 0 {
				t.Errorf("%#v became %#v: %v", l, back, err)
			}
		}
	})
}
