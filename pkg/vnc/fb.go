package vnc

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// FBWriter writes an fb file: a gzip stream, of one member or more, of chunks
//
//	<offset in ns> <length>\r\n<bytes>\r\n
//
// whose bytes, put together, are what a server sent after the handshake in the
// standard pixel format. It belongs to one goroutine.
type FBWriter struct {
	out   io.Writer
	zw    *gzip.Writer
	dirty bool // something may not be readable yet
	open  bool // the member has something in it
}

// NewFBWriter starts a recording of a screen of w x h pixels: the first chunk
// is an update that sets this size, since the handshake that told it is not
// part of the file.
func NewFBWriter(out io.Writer, w, h int) (*FBWriter, error) { return NewFBWriterAt(out, 0, w, h) }

// NewFBWriterAt is NewFBWriter for a part of a recording that goes on at offset
// after its start: out appends to what is there.
func NewFBWriterAt(out io.Writer, offset time.Duration, w, h int) (*FBWriter, error) {
	zw, err := gzip.NewWriterLevel(out, gzip.BestSpeed) // a busy screen is 30 MB a second
	if err != nil {
		return nil, err
	}
	f := &FBWriter{out: out, zw: zw}
	return f, f.WriteChunk(offset, appendSizeUpdate(nil, w, h))
}

// appendSizeUpdate adds an update that says how large the screen is.
func appendSizeUpdate(b []byte, w, h int) []byte {
	size := EncDesktopSize
	b = append(b, srvUpdate, 0, 0, 1, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(w))
	b = binary.BigEndian.AppendUint16(b, uint16(h))
	return binary.BigEndian.AppendUint32(b, uint32(size))
}

// WriteChunk adds what the server sent at offset after the start.
func (f *FBWriter) WriteChunk(offset time.Duration, p []byte) error {
	f.dirty, f.open = true, true
	if _, err := f.zw.Write(AppendChunkHead(nil, offset, len(p))); err != nil {
		return err
	}
	if _, err := f.zw.Write(p); err != nil {
		return err
	}
	_, err := io.WriteString(f.zw, ChunkEnd)
	return err
}

// ChunkEnd follows the bytes of a chunk.
const ChunkEnd = "\r\n"

// AppendChunkHead appends what precedes the n bytes of a chunk.
func AppendChunkHead(b []byte, offset time.Duration, n int) []byte {
	return fmt.Appendf(b, "%d %d\r\n", offset.Nanoseconds(), n)
}

// Mark adds an update without a change, so that the file tells how long the
// screen stayed as it was. It must not come in the middle of a message.
func (f *FBWriter) Mark(offset time.Duration) error {
	return f.WriteChunk(offset, []byte{srvUpdate, 0, 0, 0})
}

// Flush makes what was written readable, even if Close never comes.
func (f *FBWriter) Flush() error {
	if !f.dirty {
		return nil
	}
	f.dirty = false
	return f.zw.Flush()
}

// Seal ends the gzip member: the file is complete as it is, and whatever is cut
// off behind this place. The next chunk begins another.
func (f *FBWriter) Seal() error {
	if !f.open {
		return nil
	}
	f.dirty, f.open = false, false
	err := f.zw.Close()
	f.zw.Reset(f.out)
	return err
}

// Close ends the gzip stream; it does not close the file.
func (f *FBWriter) Close() error { return f.Seal() }

// Frame is the screen at a time of a recording.
type Frame struct {
	Offset time.Duration // since the start
	Image  *image.RGBA   // valid until the next frame is read
	Update Update        // what changed; no rectangles: only time passed
}

// FBReader reads an fb file.
type FBReader struct {
	chunks *chunkReader
	dec    *decoder
}

// NewFBReader reads a recording from r.
func NewFBReader(r io.Reader) (*FBReader, error) {
	zr, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not an fb recording: %w", err)
	}
	c := &chunkReader{r: bufio.NewReader(zr)}
	dec, err := newDecoder(bufio.NewReaderSize(c, 64<<10), 0, 0, false)
	if err != nil {
		return nil, err
	}
	dec.grow = true // recordings without a size at the start
	return &FBReader{chunks: c, dec: dec}, nil
}

// Offset returns the time of what Next will read, without reading it; Frames
// handed out before stay valid. Errors are those of Next.
func (f *FBReader) Offset() (time.Duration, error) {
	if _, err := f.dec.r.Peek(1); err != nil {
		return 0, err
	}
	return f.chunks.offset, nil
}

// Next returns the next frame, io.EOF after the last one of a complete
// recording and io.ErrUnexpectedEOF after the last one of a recording that was
// cut off.
func (f *FBReader) Next() (Frame, error) {
	for {
		m, err := f.dec.next()
		if err != nil {
			return Frame{}, err
		}
		if u, ok := m.(Update); ok {
			return Frame{Offset: f.chunks.offset, Image: f.dec.screen, Update: u}, nil
		}
	}
}

// All yields the frames in order, and at last the error that ended them, if
// the recording is not complete.
func (f *FBReader) All() iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		for {
			frame, err := f.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(frame, err) || err != nil {
				return
			}
		}
	}
}

// chunkReader reads the bytes of all chunks, and knows the offset of the last.
type chunkReader struct {
	r      *bufio.Reader
	offset time.Duration
	left   int64 // of the current chunk
	inside bool  // the current chunk's end is still to come
}

func (c *chunkReader) Read(p []byte) (int, error) {
	for c.left == 0 {
		if err := c.nextChunk(); err != nil {
			return 0, err
		}
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, noEOF(err)
}

func (c *chunkReader) nextChunk() error {
	if c.inside {
		var end [2]byte
		if _, err := io.ReadFull(c.r, end[:]); err != nil {
			return noEOF(err)
		}
		if string(end[:]) != "\r\n" {
			return errors.New("fb recording: a chunk is longer than it says")
		}
		c.inside = false
	}
	return c.chunkHead()
}

// maxChunkHead is the longest head of a chunk: two numbers of 19 digits.
const maxChunkHead = 64

func (c *chunkReader) chunkHead() error {
	var line []byte
	for !strings.HasSuffix(string(line), "\r\n") {
		b, err := c.r.ReadByte()
		if err != nil {
			if len(line) > 0 {
				err = noEOF(err)
			}
			return err // io.EOF between two chunks is the end
		}
		if line = append(line, b); len(line) > maxChunkHead {
			return errors.New("fb recording: a chunk's head is too long")
		}
	}
	offset, length, _ := strings.Cut(strings.TrimSuffix(string(line), "\r\n"), " ")
	at, err1 := strconv.ParseInt(offset, 10, 64)
	n, err2 := strconv.ParseInt(length, 10, 64)
	if err1 != nil || err2 != nil || at < 0 || n < 0 {
		return fmt.Errorf("fb recording: %q is not a chunk's head", line)
	}
	c.offset = max(c.offset, time.Duration(at))
	c.left, c.inside = n, true
	return nil
}
