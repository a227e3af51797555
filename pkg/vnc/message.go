package vnc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Message types, client to server (RFC 6143 §7.5 and extensions).
const (
	msgSetPixelFormat    = 0
	msgSetEncodings      = 2
	msgUpdateRequest     = 3
	msgKey               = 4
	msgPointer           = 5
	msgCut               = 6
	msgContinuousUpdates = 150
	msgFence             = 248
	msgXVP               = 250
	msgSetDesktopSize    = 251
	msgGII               = 253
	msgQEMU              = 255

	qemuExtendedKey = 0
	qemuAudio       = 1
	qemuAudioFormat = 2 // operation of qemuAudio with a body
)

// maxInline is the most that a message may hold and still be read whole.
const maxInline = 1 << 20

// ErrUnknownMessage says that a message has a type whose length is not known,
// so that nothing after it can be understood either.
var ErrUnknownMessage = errors.New("unknown message type")

// Input is what a person at a client did: KeyEvent, PointerEvent or CutText;
// or Opaque, when the proxy cannot follow that client any more.
type Input interface{ input() }

// KeyEvent is a key going down or up. Keysym is X11's number.
type KeyEvent struct {
	Down   bool
	Keysym uint32
}

// PointerEvent is the pointer's place in pixels and its pressed buttons, bit 0 the left.
type PointerEvent struct {
	Buttons uint8
	X, Y    uint16
}

// CutText is a new content of the client's clipboard.
type CutText struct {
	Text      string // Latin-1 on the wire, UTF-8 here, at most MaxCut bytes of it
	Truncated bool
}

// Opaque says that nothing more will be seen of this client's input.
type Opaque struct{ Reason string }

func (KeyEvent) input()     {}
func (PointerEvent) input() {}
func (CutText) input()      {}
func (Opaque) input()       {}

// Append adds the message that sends e.
func (e KeyEvent) Append(b []byte) []byte {
	b = append(b, msgKey, flag(e.Down), 0, 0)
	return binary.BigEndian.AppendUint32(b, e.Keysym)
}

// Append adds the message that sends e.
func (e PointerEvent) Append(b []byte) []byte {
	b = append(b, msgPointer, e.Buttons)
	b = binary.BigEndian.AppendUint16(b, e.X)
	return binary.BigEndian.AppendUint16(b, e.Y)
}

// Append adds the message that sends e. Characters outside Latin-1 become '?'.
func (e CutText) Append(b []byte) []byte {
	text := toLatin1(e.Text)
	b = append(b, msgCut, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

func appendUpdateRequest(b []byte, incremental bool, x, y, w, h int) []byte {
	b = append(b, msgUpdateRequest, flag(incremental))
	for _, v := range [...]int{x, y, w, h} {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

func appendSetEncodings(b []byte, encs []Encoding) []byte {
	b = append(b, msgSetEncodings, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(encs)))
	for _, e := range encs {
		b = binary.BigEndian.AppendUint32(b, uint32(e))
	}
	return b
}

// clientMessage is one message from a client.
type clientMessage struct {
	raw  []byte // the message, or its head when rest > 0; valid until the next read
	rest int64  // bytes that follow raw on the wire, too many to be held
}

func (m *clientMessage) kind() uint8 { return m.raw[0] }

// readClientMessage reads the next message. The reader's buffer must hold at
// least 16 bytes. ErrUnknownMessage leaves the message unread.
func readClientMessage(r *bufio.Reader, buf []byte) (clientMessage, error) {
	head, err := r.Peek(1)
	if err != nil {
		return clientMessage{}, err
	}
	n, known := headLen(head[0])
	if !known {
		return clientMessage{}, fmt.Errorf("%w %d", ErrUnknownMessage, head[0])
	}
	if head, err = r.Peek(n); err != nil {
		return clientMessage{}, noEOF(err)
	}
	total, known := messageLen(head)
	if !known {
		return clientMessage{}, fmt.Errorf("%w %d.%d", ErrUnknownMessage, head[0], head[1])
	}
	if total <= maxInline {
		return readInline(r, buf, int(total))
	}
	m := clientMessage{raw: append(buf[:0], head...), rest: total - int64(n)}
	_, err = r.Discard(n)
	return m, err
}

func readInline(r *bufio.Reader, buf []byte, n int) (clientMessage, error) {
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	m := clientMessage{raw: buf[:n]}
	_, err := io.ReadFull(r, m.raw)
	return m, noEOF(err)
}

// headLen says how many bytes of a message of that type tell its length.
func headLen(kind uint8) (int, bool) {
	switch kind {
	case msgSetPixelFormat, msgUpdateRequest, msgKey, msgPointer, msgContinuousUpdates, msgXVP:
		return 1, true
	case msgSetEncodings, msgGII, msgQEMU:
		return 4, true
	case msgCut, msgSetDesktopSize:
		return 8, true
	case msgFence:
		return 9, true
	}
	return 0, false
}

// messageLen says how long the message is that starts with head.
func messageLen(head []byte) (int64, bool) {
	switch head[0] {
	case msgSetPixelFormat:
		return 20, true
	case msgUpdateRequest, msgContinuousUpdates:
		return 10, true
	case msgKey:
		return 8, true
	case msgPointer:
		return 6, true
	case msgXVP:
		return 4, true
	case msgSetEncodings:
		return 4 + 4*int64(binary.BigEndian.Uint16(head[2:])), true
	case msgCut:
		return 8 + cutLen(head), true
	case msgFence:
		return 9 + int64(head[8]), true
	case msgSetDesktopSize:
		return 8 + 16*int64(head[6]), true
	case msgGII:
		return giiLen(head), true
	case msgQEMU:
		return qemuLen(head)
	}
	return 0, false
}

// cutLen is the length of clipboard data. A negative number on the wire marks
// the extended form and counts the same.
func cutLen(head []byte) int64 {
	n := int64(int32(binary.BigEndian.Uint32(head[4:])))
	if n < 0 {
		return -n
	}
	return n
}

func giiLen(head []byte) int64 {
	if head[1]&0x80 != 0 {
		return 4 + int64(binary.BigEndian.Uint16(head[2:]))
	}
	return 4 + int64(binary.LittleEndian.Uint16(head[2:]))
}

func qemuLen(head []byte) (int64, bool) {
	switch {
	case head[1] == qemuExtendedKey:
		return 12, true
	case head[1] != qemuAudio:
		return 0, false
	case binary.BigEndian.Uint16(head[2:]) == qemuAudioFormat:
		return 10, true
	}
	return 4, true
}

// input returns what the person did, or nil for messages between machines.
// It does not cover cut text that is too long to be held, and keys without a keysym.
func (m *clientMessage) input() Input {
	b := m.raw
	switch {
	case b[0] == msgKey:
		return KeyEvent{Down: b[1] != 0, Keysym: binary.BigEndian.Uint32(b[4:])}
	case b[0] == msgPointer:
		return PointerEvent{Buttons: b[1], X: binary.BigEndian.Uint16(b[2:]), Y: binary.BigEndian.Uint16(b[4:])}
	case b[0] == msgQEMU && b[1] == qemuExtendedKey && binary.BigEndian.Uint32(b[4:]) != 0:
		return KeyEvent{Down: binary.BigEndian.Uint16(b[2:]) != 0, Keysym: binary.BigEndian.Uint32(b[4:])}
	case b[0] == msgCut && m.rest == 0 && int32(binary.BigEndian.Uint32(b[4:])) >= 0:
		return cutText(b[8:])
	}
	return nil
}

func cutText(latin1 []byte) CutText {
	cut := len(latin1) > MaxCut
	if cut {
		latin1 = latin1[:MaxCut]
	}
	return CutText{Text: fromLatin1(latin1), Truncated: cut}
}

func fromLatin1(b []byte) string {
	runes := make([]rune, len(b))
	for i, c := range b {
		runes[i] = rune(c)
	}
	return string(runes)
}

func toLatin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r > 0xff {
			r = '?'
		}
		b = append(b, byte(r))
	}
	return b
}

// noEOF turns the end of input inside a message into what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
