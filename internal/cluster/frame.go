package cluster

import (
	"encoding"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"minimega/internal/errs"
)

// A frame is a kind (1 byte), a length (4 bytes, big endian), and so many bytes.
const (
	frameRequest = iota + 1
	frameProgress
	frameAnswer
	frameError
)

// What a peer may make this host hold in memory at once, in bytes.
const (
	maxRequest = 64 << 20
	frameHead  = 5
)

var maxAnswer = 512 << 20 // a test wants less

var errTooLong = errors.New("message too long")

func writeFrame(w io.Writer, kind byte, payload []byte) error {
	if len(payload) > maxAnswer {
		return fmt.Errorf("%w: %d bytes, at most %d are sent", errTooLong, len(payload), maxAnswer)
	}
	head := [frameHead]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	if len(payload) < 64<<10 { // one write, one packet
		_, err := w.Write(append(head[:], payload...))
		return err
	}
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

// readFrame reads a frame of at most limit bytes. Memory is taken as bytes
// arrive, not as they are announced.
func readFrame(r io.Reader, limit int) (kind byte, payload []byte, err error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := int(binary.BigEndian.Uint32(head[1:]))
	if n > limit {
		return 0, nil, fmt.Errorf("%w: %d bytes, at most %d are read", errTooLong, n, limit)
	}
	payload, err = readExactly(r, n)
	return head[0], payload, err
}

// trusted is how much is allocated on the word of a peer.
const trusted = 4 << 20

func readExactly(r io.Reader, n int) ([]byte, error) {
	buf := make([]byte, min(n, trusted))
	for read := 0; ; {
		k, err := io.ReadFull(r, buf[read:])
		if err != nil {
			return nil, fmt.Errorf("cut short: %w", err)
		}
		if read += k; read == n {
			return buf, nil
		}
		grown := make([]byte, min(n, 2*len(buf)))
		copy(grown, buf)
		buf = grown
	}
}

// Values travel as JSON, except those that know a form of their own.

func encode(v any) ([]byte, error) {
	if b, ok := v.(encoding.BinaryAppender); ok {
		return b.AppendBinary(nil)
	}
	return json.Marshal(v)
}

func decode(payload []byte, to any) error {
	var err error
	if b, ok := to.(encoding.BinaryUnmarshaler); ok {
		err = b.UnmarshalBinary(payload)
	} else {
		err = json.Unmarshal(payload, to)
	}
	if err != nil {
		return errs.New(errs.Invalid, "message of another host, perhaps of another version: %w", err)
	}
	return nil
}

// wireError is an error on its way.
type wireError struct {
	Kind                   errs.Kind
	Host, VM, Step, Remedy string
	Text                   string
}

func encodeError(err error) []byte {
	w := wireError{Kind: errs.KindOf(err), Host: HostOf(err), Text: err.Error()}
	known := (*errs.Error)(nil)
	if errors.As(err, &known) && error(known) == err {
		w.VM, w.Step, w.Remedy, w.Text = known.VM, known.Step, known.Remedy, known.Err.Error()
	}
	payload, err := json.Marshal(w)
	if err != nil {
		return []byte(`{}`)
	}
	return payload
}

func decodeError(payload []byte) error {
	var w wireError
	if err := decode(payload, &w); err != nil {
		return err
	}
	if w.Kind == "" {
		w.Kind = errs.Internal
	}
	return &errs.Error{Kind: w.Kind, Host: w.Host, VM: w.VM, Step: w.Step, Remedy: w.Remedy, Err: errors.New(w.Text)}
}
