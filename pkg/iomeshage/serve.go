package iomeshage

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"time"

	"minimega/pkg/meshage"
)

const (
	// idle is how long a peer may be silent in the middle of something.
	idle = 30 * time.Second
	// between is how long a stream stays open without a request.
	between = 2 * time.Minute
)

// serve answers requests for chunks until the peer has had enough.
func (s *Service) serve(ctx context.Context, from string, stream meshage.Stream) {
	if !s.enter() {
		return
	}
	defer s.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ctx, func() { cancel(); _ = stream.Reset() })()
	defer stream.Close()
	if !s.peers.enter(from) {
		_ = stream.SetDeadline(time.Now().Add(idle))
		if _, err := readRequest(stream); err == nil {
			_ = writeRefusal(stream, refuse(codeBusy, "too many streams"))
		}
		return
	}
	defer s.peers.leave(from)
	buf := make([]byte, frameHeader+blockSize)
	for {
		_ = stream.SetDeadline(time.Now().Add(between))
		q, err := readRequest(stream)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.opts.Log.Debug("file distribution: stream ends", "peer", from, "err", err)
			}
			return
		}
		if err := s.serveChunk(ctx, stream, q, buf); err != nil {
			s.opts.Log.Debug("file distribution: chunk not sent", "peer", from, "file", q.Name, "chunk", q.Chunk, "err", err)
			return
		}
	}
}

// serveChunk answers one request. An error is the end of the stream; a refusal
// is not.
func (s *Service) serveChunk(ctx context.Context, w meshage.Stream, q chunkRequest, buf []byte) error {
	src, err := s.source(q)
	if err == nil {
		defer src.close()
		err = s.sendChunk(ctx, w, src, q.Chunk, buf)
	}
	if r := (*refusal)(nil); errors.As(err, &r) {
		_ = w.SetDeadline(time.Now().Add(idle))
		return writeRefusal(w, r)
	}
	return err
}

// source is an open file to serve chunks from: whole, or still coming.
type source struct {
	f      *os.File
	layout layout
	known  *sums
	still  func() bool // it has not changed since
	close  func()
}

func (s *Service) source(q chunkRequest) (*source, error) {
	if t := s.running(q.Name); t != nil && t.version == q.Version {
		return t.source(q.Chunk)
	}
	leave, ok := s.crowd.enter(q.Name)
	if !ok {
		return nil, refuse(codeBusy, "others are being sent this file")
	}
	f, id, err := s.version(q.Name, q.Version)
	if err != nil {
		leave()
		return nil, err
	}
	l := layoutOf(id.size)
	if q.Chunk >= l.count() {
		_ = f.Close()
		leave()
		return nil, refuse(codeBad, "no such chunk")
	}
	return &source{f: f, layout: l, known: s.hashes.of(id),
		still: func() bool { return unchanged(f, id) }, close: func() { _ = f.Close(); leave() }}, nil
}

// sendChunk sends the blocks of a chunk and its hash, which is computed on the
// way if nobody has yet.
func (s *Service) sendChunk(ctx context.Context, w meshage.Stream, src *source, i int, buf []byte) error {
	v, known := src.known.get(i)
	h := &chunkHash{}
	out := &sender{s: s, ctx: ctx, w: w}
	if c, ok := w.(*plain); ok && known {
		return out.end(src, out.whole(c, src, i), v)
	}
	err := readBlocks(ctx, src.f, src.layout, i, buf[frameHeader:], func(b []byte, n int64) error {
		switch {
		case b == nil:
			h.zero()
			out.zeros += n
			return nil
		case !known:
			h.block(b)
		}
		return out.block(buf[:frameHeader+len(b)], n)
	})
	if !known {
		v = h.sum()
	}
	err = out.end(src, err, v)
	if err == nil {
		src.known.set(i, v)
	}
	return err
}

// sender writes the blocks of a chunk, and blocks of zeros in one frame.
type sender struct {
	s      *Service
	ctx    context.Context
	w      meshage.Stream
	zeros  int64 // not sent yet
	broken bool  // the stream is, or its time is over
}

// end ends a chunk, unless something has come between.
func (o *sender) end(src *source, err error, v sum) error {
	if err == nil {
		err = o.flush()
	}
	switch {
	case o.broken:
		return err
	case !src.still():
		return refuse(codeChanged, "%s has changed", path.Base(src.f.Name()))
	case err != nil:
		return refuse(codeFailed, "%v", err)
	}
	return writeFrame(o.w, frameEnd, v[:])
}

// whole lets the kernel send a chunk from the file, holes apart.
func (o *sender) whole(c *plain, src *source, i int) error {
	off, n := src.layout.at(i)
	dense := src.known.isDense()
	step := int64(blockSize)
	if dense && o.s.out == nil { // with a rate, each block has its time
		step = n
	}
	for end := off + n; off < end; off += step {
		size := min(step, end-off)
		if !dense && nextData(src.f, off, src.layout.size) >= off+size {
			o.zeros += size
			continue
		}
		var frame [frameHeader]byte
		if err := o.block(frame[:], size); err != nil {
			return err
		}
		if _, err := src.f.Seek(off, io.SeekStart); err != nil {
			return err
		}
		sent, err := c.ReadFrom(io.LimitReader(src.f, size))
		if err == nil && sent < size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			o.broken = true // in the middle of a frame
			return err
		}
	}
	return nil
}

// block sends n bytes that lie behind the room for their header in frame, or
// only the header if nothing does.
func (o *sender) block(frame []byte, n int64) error {
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.s.out.pass(o.ctx, int(n)); err != nil {
		o.broken = true
		return err
	}
	putHeader(frame, frameData, int(n))
	return o.write(frame)
}

func (o *sender) flush() error {
	if o.zeros == 0 {
		return nil
	}
	var frame [frameHeader]byte
	putHeader(frame[:], frameZero, int(o.zeros))
	o.zeros = 0
	return o.write(frame[:])
}

func (o *sender) write(frame []byte) error {
	_ = o.w.SetDeadline(time.Now().Add(idle))
	_, err := o.w.Write(frame)
	o.broken = err != nil
	return err
}
