package iomeshage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/pkg/meshage"
)

// findRequest asks which files a name, a directory or a pattern means.
type findRequest struct {
	Pattern string `json:"pattern"`
	// Exact also finds the one file of this name that is still coming.
	Exact bool `json:"exact,omitempty"`
}

// The kinds of what a host has.
const (
	kindFile = ""
	kindDir  = "directory"
	kindLink = "link"
)

// found is one file, directory or link at one host.
type found struct {
	Name    string `json:"name"`
	Kind    string `json:"kind,omitempty"`
	Size    int64  `json:"size,omitempty"`
	MTime   int64  `json:"mtime,omitempty"`  // ns since 1970, by the clock of the first host that had it
	Mode    uint32 `json:"mode,omitempty"`   // as the system has it: permissions, set-id bits, sticky
	Target  []byte `json:"target,omitempty"` // of a link, which may lead anywhere
	Version string `json:"version,omitempty"`
	// Partial is a file that is still coming, of which the chunks in Done are there.
	Partial bool   `json:"partial,omitempty"`
	Done    []byte `json:"done,omitempty"`
}

// has reports whether a host that is still fetching has a chunk.
func (f *found) has(i int) bool {
	return !f.Partial || i/8 < len(f.Done) && f.Done[i/8]&(1<<(i%8)) != 0
}

// check refuses what no host can have.
func (f *found) check() error {
	if err := checkName(f.Name); err != nil {
		return err
	}
	ok := f.Name != "." && f.Size >= 0 && f.Size <= maxSize && f.Mode <= modeBits && len(f.Version) <= 64
	switch f.Kind {
	case kindFile:
		ok = ok && len(f.Target) == 0
	case kindDir:
		ok = ok && len(f.Target) == 0 && f.Size == 0 && !f.Partial
	case kindLink:
		ok = ok && len(f.Target) > 0 && len(f.Target) < maxName && !bytes.Contains(f.Target, []byte{0}) && f.Size == 0 && !f.Partial
	default:
		ok = false
	}
	if !ok {
		return errGarbage
	}
	return nil
}

// same compares what can be told apart without reading: a copy made by us keeps
// the time of the original. Files that were given other content of one size at
// one time, to the nanosecond, are taken for the same, which costs nothing: of
// such two the one that comes is that of the authority, chunk by chunk.
func (f *found) same(g *found) bool {
	return f.Kind == g.Kind && bytes.Equal(f.Target, g.Target) && f.Size == g.Size && (f.Kind != kindFile || f.MTime == g.MTime)
}

// what says in an error what it is.
func (f *found) what() string {
	switch f.Kind {
	case kindDir:
		return "a directory"
	case kindLink:
		return fmt.Sprintf("a link to %q", f.Target)
	}
	return fmt.Sprintf("%d bytes", f.Size)
}

type findReply struct {
	Files []found `json:"files"`
	// Odd is something in the directory asked for that is not sent with it.
	Odd string `json:"odd,omitempty"`
}

// hashRequest asks for hashes: of Count chunks beginning with From, which may
// take reading them, or, with no Count, of those found after the first Since.
type hashRequest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	From    int    `json:"from,omitempty"`
	Count   int    `json:"count,omitempty"`
	Since   int    `json:"since,omitempty"`
}

type hashReply struct {
	Chunks []int  `json:"chunks"`
	Sums   []byte `json:"sums"` // 32 bytes for each of Chunks
}

type extentRequest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// extent is a part of a file that is no hole.
type extent struct {
	Off int64 `json:"off"`
	Len int64 `json:"len"`
}

type extentReply struct {
	Extents []extent `json:"extents"`
}

const (
	hashBatch  = 32 // chunks in one request for hashes
	maxExtents = 4096
)

// envelope carries an answer, or why there is none.
type envelope struct {
	Refused *refusal        `json:"refused,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// answer makes a responder of a function that returns an answer or a refusal.
func (s *Service) answer(f func(context.Context, []byte) (any, error)) meshage.Responder {
	return func(ctx context.Context, _ string, request []byte) ([]byte, error) {
		if !s.enter() {
			return nil, ErrClosed
		}
		defer s.leave()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(s.ctx, cancel)()
		v, err := f(ctx, request)
		if r := (*refusal)(nil); errors.As(err, &r) {
			return json.Marshal(envelope{Refused: r})
		}
		if err != nil {
			return nil, err
		}
		body, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		return json.Marshal(envelope{Body: body})
	}
}

// ask sends a request to a host and waits for its answer.
func ask[T any](ctx context.Context, mesh meshage.Mesh, to, protocol string, request any) (T, error) {
	var v T
	body, err := json.Marshal(request)
	if err != nil {
		return v, err
	}
	reply, err := mesh.Call(ctx, to, protocol, body)
	if err != nil {
		return v, err
	}
	return decode[T](reply)
}

func decode[T any](reply []byte) (T, error) {
	var v T
	var e envelope
	if err := json.Unmarshal(reply, &e); err != nil {
		return v, errGarbage
	}
	if e.Refused != nil {
		return v, e.Refused
	}
	if err := json.Unmarshal(e.Body, &v); err != nil {
		return v, errGarbage
	}
	return v, nil
}

func (s *Service) answerFind(_ context.Context, request []byte) (any, error) {
	var q findRequest
	if err := json.Unmarshal(request, &q); err != nil || len(q.Pattern) > maxName {
		return nil, refuse(codeBad, "no request")
	}
	if q.Pattern != "." && !isPattern(q.Pattern) && checkName(q.Pattern) != nil {
		return nil, refuse(codeBad, "no name: %q", q.Pattern)
	}
	files, odd, err := s.find(q.Pattern)
	if err != nil {
		return nil, refuse(codeBad, "%v", err)
	}
	if q.Exact {
		if t := s.running(q.Pattern); t != nil {
			if f, ok := t.found(); ok {
				files = append(files, f)
			}
		}
	}
	return findReply{files, odd}, nil
}

// find lists what a name, a directory or a pattern means here. odd is the first
// below a directory that is not sent with it: a device, and the like.
func (s *Service) find(pattern string) (files []found, odd string, err error) {
	files = []found{}
	err = s.visit(pattern, func(name string, st fs.FileInfo) error {
		if f, ok := s.foundAt(name, st); ok {
			files = append(files, f)
		}
		return nil
	}, func(name string) error {
		if odd == "" && pattern != "." {
			odd = strings.ToValidUTF8(name, "?")
		}
		return nil
	})
	return files, odd, err
}

func (s *Service) foundAt(name string, st fs.FileInfo) (found, bool) {
	f := found{Name: name, Mode: wireMode(st)}
	switch {
	case st.IsDir():
		f.Kind = kindDir
	case st.Mode().Type() == fs.ModeSymlink:
		to, err := s.root.Readlink(name)
		f.Kind, f.Target = kindLink, []byte(to)
		return f, err == nil && f.check() == nil
	default:
		id := identityOf(st)
		f.Size, f.MTime, f.Version = id.size, id.mtime, id.version()
	}
	return f, f.Size <= maxSize
}

func (s *Service) answerExtents(_ context.Context, request []byte) (any, error) {
	var q extentRequest
	if err := json.Unmarshal(request, &q); err != nil || checkName(q.Name) != nil {
		return nil, refuse(codeBad, "no request")
	}
	f, id, err := s.version(q.Name, q.Version)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list := extents(f, id.size)
	s.hashes.of(id).note(list, id.size)
	return extentReply{list}, nil
}

// version opens a file if it is in the state asked for.
func (s *Service) version(name, version string) (*os.File, identity, error) {
	f, id, err := openFile(s.root, name)
	if err != nil {
		return nil, id, refuse(codeChanged, "%s is not there any more", path.Base(name))
	}
	if id.version() != version {
		_ = f.Close()
		return nil, id, refuse(codeChanged, "%s has changed", path.Base(name))
	}
	return f, id, nil
}

// extents returns the parts of f that are no holes; where there are very many,
// those between which the holes are largest.
func extents(f *os.File, size int64) []extent {
	var list []extent
	for at := int64(0); at < size; {
		from, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && from >= size {
			break
		}
		if err != nil {
			return []extent{{0, size}}
		}
		to, err := unix.Seek(int(f.Fd()), from, unix.SEEK_HOLE)
		if err != nil || to <= from {
			to = size
		}
		to = min(to, size)
		list = append(list, extent{from, to - from})
		if len(list) > 2*maxExtents {
			list = merge(list, maxExtents)
		}
		at = to
	}
	return merge(list, maxExtents)
}

// merge closes the smallest holes until there are at most n extents.
func merge(list []extent, n int) []extent {
	if len(list) <= n {
		return list
	}
	holes := make([]int64, 0, len(list)-1)
	for i := 1; i < len(list); i++ {
		holes = append(holes, list[i].Off-list[i-1].Off-list[i-1].Len)
	}
	sort.Slice(holes, func(i, j int) bool { return holes[i] > holes[j] })
	least := holes[n-1] // keep the n-1 that are larger
	out := list[:1]
	for _, e := range list[1:] {
		last := &out[len(out)-1]
		if e.Off-last.Off-last.Len > least {
			out = append(out, e)
			continue
		}
		last.Len = e.Off + e.Len - last.Off
	}
	return out
}

// checkExtents refuses a list that is not in order, or beyond the file.
func checkExtents(list []extent, size int64) error {
	at := int64(0)
	for _, e := range list {
		if e.Off < at || e.Len <= 0 || e.Off > size || e.Len > size-e.Off {
			return errGarbage
		}
		at = e.Off + e.Len
	}
	return nil
}

// answered is what one of several hosts said.
type answered[T any] struct {
	host  string
	value T
	err   error
}

// askAll sends a request to several hosts and passes on their answers as they
// come.
func askAll[T any](ctx context.Context, mesh meshage.Mesh, to []string, protocol string, request any) iter.Seq[answered[T]] {
	return func(yield func(answered[T]) bool) {
		body, err := json.Marshal(request)
		if err != nil {
			return
		}
		more := true
		for r := range mesh.CallAll(ctx, to, protocol, body) {
			a := answered[T]{host: r.From, err: r.Err}
			if r.Err == nil {
				a.value, a.err = decode[T](r.Payload)
			}
			more = more && yield(a) // the channel is read to its end
		}
	}
}
