package vnc

import (
	"bytes"
	"testing"
	"time"
)

func recording(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewFBWriter(&b, 4, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := w.Mark(time.Duration(i+1) * time.Second); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// However much of a recording was written, what is whole of it can be read, and
// it can go on.
func TestRepairFB(t *testing.T) {
	whole := recording(t)
	most := 0
	for n := range len(whole) + 1 {
		var out bytes.Buffer
		last, err := RepairFB(bytes.NewReader(whole[:n]), &out, 1<<20)
		if err != nil {
			if n >= 10 { // of which the head of gzip is made
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		w, err := NewFBWriterAt(&out, 10*time.Second, 4, 4)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		frames, end := read(t, out.Bytes())
		if end != 10*time.Second {
			t.Errorf("%d bytes: ends at %v", n, end)
		}
		if frames < most {
			t.Errorf("%d bytes: %d frames, fewer than of less", n, frames)
		}
		most = frames
		if n == len(whole) && last != 5*time.Second {
			t.Errorf("the last chunk is at %v", last)
		}
	}
	if most != 7 {
		t.Errorf("%d frames of the whole", most)
	}
}

func read(t *testing.T, file []byte) (frames int, end time.Duration) {
	t.Helper()
	r, err := NewFBReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range r.All() {
		if err != nil {
			t.Fatal(err)
		}
		frames, end = frames+1, f.Offset
	}
	return frames, end
}

func FuzzRepairFB(f *testing.F) {
	whole := recording(f)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Fuzz(func(t *testing.T, file []byte) {
		var out bytes.Buffer
		if _, err := RepairFB(bytes.NewReader(file), &out, 1<<16); err != nil {
			return
		}
		var again bytes.Buffer
		if _, err := RepairFB(&out, &again, 1<<16); err != nil {
			t.Errorf("what was repaired is broken: %v", err)
		}
	})
}
