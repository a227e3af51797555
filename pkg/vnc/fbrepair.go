package vnc

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"time"
)

// RepairFB copies the whole chunks of an fb file of ours, whose writer may have
// been killed, to out, which becomes a complete one. It returns the offset of
// the last chunk. limit bounds the bytes of one chunk.
func RepairFB(in io.Reader, out io.Writer, limit int64) (time.Duration, error) {
	zr, err := gzip.NewReader(in)
	if err != nil {
		return 0, fmt.Errorf("not an fb recording: %w", err)
	}
	defer zr.Close()
	return PackFB(zr, out, limit)
}

// PackFB writes an fb file, or a part to append to one, of chunks that are not
// compressed; the last may be cut off, and is left out then. It returns the
// offset of the last chunk, 0 if there is none. limit bounds the bytes of one.
func PackFB(chunks io.Reader, out io.Writer, limit int64) (time.Duration, error) {
	zw, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return 0, err
	}
	w := &FBWriter{out: out, zw: zw}
	c := &chunkReader{r: bufio.NewReaderSize(chunks, 64<<10)}
	var chunk bytes.Buffer
	for {
		at, err := c.whole(&chunk, limit)
		if cut(err) {
			return at, w.Close()
		}
		if err == nil {
			err = w.WriteChunk(c.offset, chunk.Bytes())
		}
		if err != nil {
			return at, err
		}
	}
}

// whole reads the next chunk with its end. The offset is that of the chunk
// before when there is no other.
func (c *chunkReader) whole(to *bytes.Buffer, limit int64) (time.Duration, error) {
	before := c.offset
	to.Reset()
	if err := c.nextChunk(); err != nil {
		return before, err
	}
	if c.left > limit {
		return before, fmt.Errorf("fb recording: a chunk of %d bytes", c.left)
	}
	if _, err := io.CopyN(to, c.r, c.left); err != nil {
		return before, noEOF(err)
	}
	c.left, c.inside = 0, false
	var end [2]byte
	if _, err := io.ReadFull(c.r, end[:]); err != nil {
		return before, noEOF(err)
	}
	if string(end[:]) != "\r\n" {
		return before, errors.New("fb recording: a chunk is longer than it says")
	}
	return c.offset, nil
}

// cut tells the end of a file, wherever it came.
func cut(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
