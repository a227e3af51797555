package meshage

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
)

// header opens every stream of the mesh: a length of two bytes, then kind,
// hops, and from, to and protocol, each with its length in one byte.
type header struct {
	kind     byte
	hops     byte // how many more nodes may pass it on
	from, to peer.ID
	protocol string
}

const (
	kindLink = iota + 1
	kindStream
	kindCall

	maxHops   = 64
	maxHeader = 2 + 3*256
)

func (h *header) append(b []byte) []byte {
	at := len(b)
	b = append(b, 0, 0, h.kind, h.hops)
	for _, s := range []string{string(h.from), string(h.to), h.protocol} {
		b = append(append(b, byte(len(s))), s...)
	}
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// readHeader reads no byte further than the header.
func readHeader(r io.Reader) (*header, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint16(size[:])
	if length > maxHeader {
		return nil, errors.New("header too large")
	}
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return parseHeader(b)
}

func parseHeader(b []byte) (*header, error) {
	if len(b) < 2 {
		return nil, errors.New("header too short")
	}
	h := &header{kind: b[0], hops: b[1]}
	b = b[2:]
	var fields [3]string
	for i := range fields {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return nil, errors.New("header cut off")
		}
		fields[i], b = string(b[1:1+int(b[0])]), b[1+int(b[0]):]
	}
	if len(b) != 0 || h.kind < kindLink || h.kind > kindCall {
		return nil, errors.New("malformed header")
	}
	h.from, h.to, h.protocol = peer.ID(fields[0]), peer.ID(fields[1]), fields[2]
	return h, errors.Join(h.from.Validate(), h.to.Validate())
}

// What the node at the other end of a stream says first.
const (
	statusOK       = iota
	statusNoRoute  // a node on the way, or the last one, cannot pass it on
	statusProtocol // nobody serves the protocol there
	statusFailed   // the responder's error
	statusTooLarge

	maxText = 64 << 10
)

// appendStatus writes a status and its text.
func appendStatus(b []byte, status byte, text string) []byte {
	text = text[:min(len(text), maxText)]
	return append(binary.BigEndian.AppendUint32(append(b, status), uint32(len(text))), text...)
}

// readStatus returns nil, or what the other side or one on the way says is
// wrong.
func readStatus(r io.Reader) error {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxText {
		return errors.New("malformed answer")
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r, text); err != nil {
		return err
	}
	if head[0] == statusOK {
		return nil
	}
	return &remoteError{head[0], string(text)}
}

// remoteError is an answer that says no.
type remoteError struct {
	status byte
	text   string
}

func (e *remoteError) Error() string { return e.text }

func (e *remoteError) Unwrap() error {
	switch e.status {
	case statusTooLarge:
		return ErrTooLarge
	case statusProtocol:
		return ErrProtocol
	}
	return nil
}

// appendPayload writes a request or a reply with its length.
func appendPayload(b, payload []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(payload))), payload...)
}

// readPayload reads what appendPayload wrote. Memory grows with what comes, not
// with what was announced.
func readPayload(r *bufio.Reader) ([]byte, error) {
	size, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, noEOF(err)
	}
	if size > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, size, MaxMessage)
	}
	const step = 1 << 20
	b := make([]byte, 0, min(size, step))
	for uint64(len(b)) < size {
		at := len(b)
		b = append(b, make([]byte, min(size-uint64(at), uint64(max(step, at))))...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, noEOF(err)
		}
	}
	return b, nil
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
