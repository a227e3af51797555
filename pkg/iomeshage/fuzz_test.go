package iomeshage

import (
	"bytes"
	"encoding/json"
	"path"
	"strings"
	"testing"
)

// sink takes chunks and counts.
type sink struct{ n int64 }

func (s *sink) data(b []byte) error  { s.n += int64(len(b)); return nil }
func (s *sink) zero(n int64) error   { s.n += n; return nil }
func frames(parts ...[]byte) []byte  { return bytes.Join(parts, nil) }
func frame(k byte, b []byte) []byte  { var w bytes.Buffer; _ = writeFrame(&w, k, b); return w.Bytes() }
func header(kind byte, n int) []byte { b := make([]byte, frameHeader); putHeader(b, kind, n); return b }

// No answer makes the reader take more than it asked for, or fail to notice
// that it is not whole.
func FuzzReadChunk(f *testing.F) {
	block := bytes.Repeat([]byte{7}, blockSize)
	f.Add(frames(frame(frameData, block), frame(frameData, []byte("abc")), frame(frameEnd, make([]byte, 32))), int64(blockSize+3))
	f.Add(frames(header(frameZero, 2*blockSize), frame(frameEnd, make([]byte, 32))), int64(2*blockSize))
	f.Add(frames(header(frameZero, 1<<31), frame(frameEnd, make([]byte, 32))), int64(maxChunk))
	f.Add(frame(frameError, []byte(`{"code":"busy","text":"x"}`)), int64(1))
	f.Add(header(frameData, -1), int64(5))
	f.Add(header(frameError, maxRefusal), int64(5))
	f.Fuzz(func(t *testing.T, in []byte, n int64) {
		n = 1 + (n&0x7fffffffffffffff)%maxChunk
		var s sink
		_, _, err := readChunk(bytes.NewReader(in), n, make([]byte, blockSize), &s)
		if s.n > n || err == nil && s.n != n {
			t.Errorf("took %d bytes of a chunk of %d, %v", s.n, n, err)
		}
	})
}

func FuzzReadRequest(f *testing.F) {
	var w bytes.Buffer
	_ = writeRequest(&w, chunkRequest{"a/b", "v", 3})
	f.Add(w.Bytes())
	f.Add([]byte("\xff\xff{}"))
	f.Add([]byte("\x00\x02{}"))
	f.Add([]byte("\x00\x1e{\"name\":\"../x\",\"chunk\":-1}    "))
	f.Fuzz(func(t *testing.T, in []byte) {
		q, err := readRequest(bytes.NewReader(in))
		if err == nil && (checkName(q.Name) != nil || q.Chunk < 0) {
			t.Errorf("%+v", q)
		}
	})
}

func FuzzAnswers(f *testing.F) {
	f.Add([]byte(`{"body":{"files":[{"name":"a","size":1,"mtime":2,"mode":420,"version":"v","done":"/w=="}]}}`), int64(100))
	f.Add([]byte(`{"body":{"chunks":[0,1],"sums":"AAAA"}}`), int64(1))
	f.Add([]byte(`{"body":{"extents":[{"off":0,"len":5},{"off":4,"len":9223372036854775807}]}}`), int64(10))
	f.Add([]byte(`{"refused":{"code":"changed","text":"x"}}`), int64(0))
	f.Fuzz(func(t *testing.T, in []byte, size int64) {
		size = size & 0x7fffffffffffffff % (maxSize + 1)
		if r, err := decode[findReply](in); err == nil {
			for _, v := range r.Files {
				if v.check() == nil && (v.Size < 0 || v.Size > maxSize || checkName(v.Name) != nil) {
					t.Errorf("%+v", v)
				}
				_ = v.has(int(size % 1000))
			}
		}
		if r, err := decode[hashReply](in); err == nil {
			n := layoutOf(size).count()
			_ = r.each(n, func(i int, _ sum) {
				if i < 0 || i >= n {
					t.Errorf("chunk %d of %d", i, n)
				}
			})
		}
		if r, err := decode[extentReply](in); err == nil && checkExtents(r.Extents, size) == nil {
			at := int64(0)
			for _, e := range r.Extents {
				if e.Off < at || e.Len <= 0 || e.Off+e.Len > size {
					t.Errorf("%+v of %d", e, size)
				}
				at = e.Off + e.Len
			}
		}
	})
}

func FuzzReadRecord(f *testing.F) {
	head, _ := json.Marshal(recordHead{"a", 100 << 20})
	f.Add(append(append(head, '\n'), make([]byte, 3*recordEntry+5)...))
	f.Add([]byte("{\"name\":\"../a\",\"size\":1}\n"))
	f.Add([]byte("{\"name\":\"a\",\"size\":-1}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, had, err := readRecord(bytes.NewReader(in))
		if err != nil {
			return
		}
		if checkName(h.Name) != nil || h.Size < 0 || h.Size > maxSize {
			t.Errorf("%+v", h)
		}
		for i := range had {
			if i < 0 || i >= layoutOf(h.Size).count() {
				t.Errorf("chunk %d of %d bytes", i, h.Size)
			}
		}
	})
}

func FuzzReadInvitation(f *testing.F) {
	body, _ := json.Marshal(invitation{Port: 1, Token: secret(), Ask: secret(), Answer: secret()})
	f.Add(append([]byte{0, byte(len(body))}, body...))
	f.Add([]byte("\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if v, err := readInvitation(bytes.NewReader(in)); err == nil && (v.Port <= 0 || len(v.Ask) != keySize) {
			t.Errorf("%+v", v)
		}
	})
}

// No name leads out of the root or to what is ours.
func FuzzClean(f *testing.F) {
	s := &Service{opts: Options{Root: "/files"}}
	for _, n := range []string{"a", "/", "", "/files/a", "/files/../etc", "../a", "a/../../b", "a\x00", partialPrefix + "x", "d/" + partialPrefix + "x", "//a//b/"} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := s.clean(name)
		if err != nil {
			return
		}
		if path.IsAbs(got) || got == ".." || strings.HasPrefix(got, "../") || strings.Contains(got, "/../") || hidden(got) {
			t.Errorf("%q became %q", name, got)
		}
		if dir := partialDir(got); !hidden(dir) || path.Dir(dir) != path.Dir(got) {
			t.Errorf("%q lies in %q", got, dir)
		}
	})
}
