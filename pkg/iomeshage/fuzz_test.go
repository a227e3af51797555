package iomeshage

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
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
	f.Add([]byte(`{"body":{"files":[{"name":"a","kind":"link","target":"L2V0Yw==","mode":511},{"name":"a/b","kind":"directory","mode":2541}]}}`), int64(100))
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
				if v.check() == nil && (v.Name == "." || v.Mode > modeBits || (v.Kind == kindLink) != (len(v.Target) > 0) || v.Kind != kindFile && (v.Size != 0 || v.Partial)) {
					t.Errorf("%+v", v)
				}
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

// Whatever a peer says it has, nothing is made outside of the files directory,
// in whichever order it is made.
func FuzzPlace(f *testing.F) {
	f.Add([]byte(`[{"name":"d/x","kind":"link","target":"Li4vLi4vb3V0c2lkZQ=="},{"name":"d/x/f"},{"name":"d/x/e","kind":"directory"},{"name":"d/x/l","kind":"link","target":"eA=="}]`))
	f.Add([]byte(`[{"name":"d","kind":"link","target":"Li4="},{"name":"d/outside/f"},{"name":"d/d","kind":"directory","mode":4095}]`))
	f.Add([]byte(`[{"name":"a","kind":"link","target":"L3RtcA=="},{"name":"a","kind":"directory"},{"name":"a"}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var files []found
		if json.Unmarshal(in, &files) != nil || len(files) > 20 {
			return
		}
		top := t.TempDir()
		if err := errors.Join(os.Mkdir(top+"/outside", 0o755), os.Mkdir(top+"/files", 0o755)); err != nil {
			t.Fatal(err)
		}
		s, err := New(Options{Root: top + "/files", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, v := range files {
			if v.check() != nil {
				continue
			}
			switch v.Kind {
			case kindDir:
				_ = s.makeDir(v.Name, fileMode(v.Mode, false))
			case kindLink:
				_ = s.makeLink(v.Name, string(v.Target))
			default:
				placeEmpty(s, v)
			}
		}
		if got := tree(t, top); slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(p string) bool {
			return p != "." && p != "outside" && p != "files" && !strings.HasPrefix(p, "files/")
		}) {
			t.Errorf("made: %v", got)
		}
	})
}

// placeEmpty makes a file as a transfer does.
func placeEmpty(s *Service, v found) {
	in, err := s.into(path.Dir(v.Name))
	if err != nil {
		return
	}
	p, _, err := openPartial(in, v.Name, 0)
	if err != nil {
		return
	}
	defer p.close()
	if p.finish(fileMode(v.Mode, false), time.Unix(0, v.MTime)) != nil {
		return
	}
	_ = p.remove()
}

func FuzzReadRecord(f *testing.F) {
	head, _ := json.Marshal(recordHead{"a", 100 << 20, chunkSize(100 << 20)})
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
