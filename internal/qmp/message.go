package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// message is whatever QEMU may send: greeting, reply or event.
type message struct {
	QMP       json.RawMessage `json:"QMP"`
	Return    json.RawMessage `json:"return"`
	Error     *Error          `json:"-"`
	RawError  json.RawMessage `json:"error"`
	ID        json.RawMessage `json:"id"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// readMessage reads one line and parses it.
func readMessage(r *bufio.Reader) (*message, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	return parse(line)
}

// readLine returns the next line that is not blank. The bytes are the
// caller's.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > maxMessage {
			return nil, fmt.Errorf("message longer than %d bytes", maxMessage)
		}
		line = append(line, part...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(bytes.TrimSpace(line)) > 0:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			return line, nil
		}
	}
}

// parse refuses what is no message of the protocol.
func parse(line []byte) (*message, error) {
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("malformed message: %w", err)
	}
	if m.RawError != nil {
		m.Error = &Error{}
		if err := json.Unmarshal(m.RawError, m.Error); err != nil {
			return nil, fmt.Errorf("malformed error: %w", err)
		}
	}
	if m.QMP == nil && m.Return == nil && m.Error == nil && m.Event == "" {
		return nil, errors.New("message is no greeting, reply or event")
	}
	return &m, nil
}

// verbatim writes the reply as QEMU did, with the caller's id (nil for none)
// in the place of ours.
func (m *message) verbatim(id json.RawMessage) json.RawMessage {
	key, value := "return", m.Return
	if m.Error != nil {
		key, value = "error", m.RawError
	}
	if id == nil {
		return fmt.Appendf(nil, `{"%s": %s}`, key, value)
	}
	return fmt.Appendf(nil, `{"%s": %s, "id": %s}`, key, value, id)
}

// event returns the event; QEMU says -1 for a time that it does not know.
func (m *message) event() Event {
	e := Event{Name: m.Event, Data: m.Data}
	if m.Timestamp.Seconds > 0 {
		e.Time = time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)
	}
	return e
}
