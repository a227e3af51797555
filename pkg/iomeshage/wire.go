package iomeshage

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// The protocols between hosts. find, hashes and extents are requests in JSON.
// On a stream of chunks one side sends requests, each of two bytes of length
// and JSON; the other answers each by frames of one byte of kind, four of
// length, and content.
const (
	findProtocol   = "iomeshage/find/3"
	hashProtocol   = "iomeshage/hashes/2"
	extentProtocol = "iomeshage/extents/1"
	chunkProtocol  = "iomeshage/chunks/3"
)

// The kinds of frames.
const (
	frameData  = 'D' // a block, or several one after the other
	frameZero  = 'Z' // blocks of zeros, as many bytes as the length says; nothing follows
	frameEnd   = 'H' // the hash of the chunk, which ends it
	frameError = 'E' // a refusal in JSON, which ends it
)

const (
	frameHeader = 5
	maxRequest  = 16 << 10
	maxRefusal  = 4 << 10
)

// chunkRequest asks for one chunk of a file in the state that version names.
type chunkRequest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Chunk   int    `json:"chunk"`
}

// refusal says why a host does not serve.
type refusal struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// The codes of refusals.
const (
	codeChanged = "changed" // the version asked for is not there any more
	codeAbsent  = "absent"  // this chunk is not here, or not yet
	codeBusy    = "busy"    // ask again later
	codeBad     = "bad"     // nothing to be asked for
	codeFailed  = "failed"  // the disk failed, and the like
)

func (r *refusal) Error() string { return r.Text }

func refuse(code, format string, args ...any) *refusal {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// refused is the code of an error, "" if it is no refusal.
func refused(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

func writeRequest(w io.Writer, r chunkRequest) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if len(body) > maxRequest {
		return errors.New("name too long")
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...))
	return err
}

func readRequest(r io.Reader) (q chunkRequest, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return q, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxRequest {
		return q, fmt.Errorf("request of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return q, fmt.Errorf("request cut short: %w", err)
	}
	if err := json.Unmarshal(body, &q); err != nil {
		return q, fmt.Errorf("request: %w", err)
	}
	if q.Chunk < 0 {
		return q, errors.New("request of a negative chunk")
	}
	return q, checkName(q.Name)
}

// putHeader writes the header of a frame into the first bytes of buf.
func putHeader(buf []byte, kind byte, n int) {
	buf[0] = kind
	binary.BigEndian.PutUint32(buf[1:frameHeader], uint32(n))
}

func writeFrame(w io.Writer, kind byte, content []byte) error {
	buf := make([]byte, frameHeader, frameHeader+len(content))
	putHeader(buf, kind, len(content))
	_, err := w.Write(append(buf, content...))
	return err
}

func writeRefusal(w io.Writer, r *refusal) error {
	short := *r
	short.Text = short.Text[:min(len(short.Text), maxRefusal/8)] // JSON may need six bytes for one
	body, err := json.Marshal(short)
	if err != nil {
		return err
	}
	return writeFrame(w, frameError, body)
}

// errGarbage is what a peer sends that does not speak this protocol.
var errGarbage = errors.New("the peer sends garbage")

// receiver takes what readChunk finds, block by block in order.
type receiver interface {
	data(block []byte) error // valid until it returns
	zero(n int64) error
}

// readChunk reads the answer to a request of a chunk of n bytes. buf holds a
// block. It returns the hash that the peer gives, and that of what it sent.
func readChunk(r io.Reader, n int64, buf []byte, to receiver) (claimed, got sum, err error) {
	h := &chunkHash{}
	var head [frameHeader]byte
	for left := n; ; {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return claimed, got, unexpected(err)
		}
		size := int64(binary.BigEndian.Uint32(head[1:]))
		blocks := size > 0 && (size == left || size < left && size%blockSize == 0)
		switch {
		case head[0] == frameData && blocks:
			for end := left - size; left > end; {
				b, err := readBlock(r, buf[:min(left-end, blockSize)])
				if err != nil {
					return claimed, got, unexpected(err)
				}
				if err := takeBlock(h, b, to); err != nil {
					return claimed, got, err
				}
				left -= int64(len(b))
			}
		case head[0] == frameZero && blocks:
			for at := int64(0); at < size; at += blockSize {
				h.zero()
			}
			if err := to.zero(size); err != nil {
				return claimed, got, err
			}
			left -= size
		case head[0] == frameEnd && size == int64(len(claimed)) && left == 0:
			_, err := io.ReadFull(r, claimed[:])
			return claimed, h.sum(), unexpected(err)
		case head[0] == frameError && size <= maxRefusal:
			return claimed, got, readRefusal(r, int(size))
		default:
			return claimed, got, errGarbage
		}
	}
}

// lender is a stream that may have read what comes next already.
type lender interface {
	// lend returns the next n bytes, valid until the next call, if they are there.
	lend(n int) (b []byte, ok bool)
}

// readBlock reads a block into buf, or borrows it from the stream.
func readBlock(r io.Reader, buf []byte) ([]byte, error) {
	if l, ok := r.(lender); ok {
		if b, ok := l.lend(len(buf)); ok {
			return b, nil
		}
	}
	_, err := io.ReadFull(r, buf)
	return buf, err
}

// takeBlock passes a block on. One of zeros is none, whatever it was sent as.
func takeBlock(h *chunkHash, b []byte, to receiver) error {
	if isZero(b) {
		h.zero()
		return to.zero(int64(len(b)))
	}
	h.block(b)
	return to.data(b)
}

func readRefusal(r io.Reader, n int) error {
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return unexpected(err)
	}
	var f refusal
	if err := json.Unmarshal(body, &f); err != nil || f.Code == "" {
		return errGarbage
	}
	return &f
}

// unexpected makes an end of the stream in the middle of an answer an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
