package vnc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// loginTime bounds a client's handshake, in which a person may type a password.
const loginTime = time.Minute

// session is one connection through a proxy. It follows the handshake to know
// where the client's messages start.
type session struct {
	proxy  *Proxy
	id     uint64
	client net.Conn
	server net.Conn
	log    *slog.Logger
	head   chan serverHead // what the server said first, for RFB 3.3
	typist *typist

	mu sync.Mutex // guards writing to server: a message at a time
}

// serverHead is the start of the server's side: its version and, in RFB 3.3,
// the security type that it chose.
type serverHead [banner + 4]byte

func newSession(p *Proxy, id uint64, client, server net.Conn, log *slog.Logger) *session {
	return &session{proxy: p, id: id, client: client, server: server, log: log, head: make(chan serverHead, 1)}
}

// fromServer copies the server's side until it ends.
func (s *session) fromServer() {
	defer close(s.head)
	var head serverHead
	_ = s.server.SetReadDeadline(time.Now().Add(s.proxy.patience))
	for n := 0; n < len(head); {
		got, err := s.server.Read(head[n:])
		if _, werr := s.client.Write(head[n : n+got]); werr != nil || err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				s.log.Warn("the machine's screen does not answer", "waited", s.proxy.patience)
			}
			return
		}
		if n += got; n >= banner {
			_ = s.server.SetReadDeadline(time.Time{})
		}
	}
	s.head <- head
	_, _ = io.Copy(s.client, s.server) // its error ends the connection, like its end
}

// fromClient passes the client's side on, message by message, until it ends.
func (s *session) fromClient() error {
	r := bufio.NewReaderSize(s.client, 16<<10)
	_ = s.client.SetReadDeadline(time.Now().Add(loginTime))
	known, err := s.handshake(r)
	_ = s.client.SetReadDeadline(time.Time{})
	if err != nil {
		return err
	}
	if !known {
		return s.opaque(r, "the client authenticates in a way that is not followed")
	}
	var buf []byte
	for {
		m, err := readClientMessage(r, buf)
		if errors.Is(err, ErrUnknownMessage) {
			return s.opaque(r, err.Error())
		}
		if err != nil {
			return err
		}
		buf = m.raw
		if err := s.pass(r, &m); err != nil {
			return err
		}
	}
}

// handshake passes on what the client says before its first message, and
// tells whether it could be followed (RFC 6143 §7.1 to §7.3.1).
func (s *session) handshake(r *bufio.Reader) (bool, error) {
	b, err := s.forward(r, banner)
	if err != nil {
		return false, err
	}
	minor, err := parseVersion(b)
	if err != nil {
		return false, nil
	}
	kind, err := s.security(r, minor)
	if err != nil {
		return false, err
	}
	switch kind {
	case secVNCAuth:
		if _, err := s.forward(r, 16); err != nil {
			return false, err
		}
	case secNone:
	default:
		return false, nil
	}
	if _, err := r.ReadByte(); err != nil { // the client's wish to share or not
		return false, err
	}
	return true, s.write([]byte{1})
}

// security returns the security type in use.
func (s *session) security(r *bufio.Reader, minor int) (uint32, error) {
	if minor == 3 {
		head, ok := <-s.head
		if !ok {
			return 0, io.EOF
		}
		return binary.BigEndian.Uint32(head[banner:]), nil
	}
	b, err := s.forward(r, 1)
	if err != nil {
		return 0, err
	}
	return uint32(b[0]), nil
}

// forward passes n bytes on and returns them.
func (s *session) forward(r *bufio.Reader, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, s.write(b)
}

// pass handles one message: who subscribed sees it, the server gets it.
func (s *session) pass(r io.Reader, m *clientMessage) error {
	if m.kind() == msgCut {
		return s.passCut(r, m)
	}
	if m.kind() == msgSetEncodings {
		dropEncodings(m, s.proxy.typeCut)
	}
	if in := m.input(); in != nil {
		s.publish(in)
	}
	return s.passRaw(r, m)
}

func (s *session) passRaw(r io.Reader, m *clientMessage) error {
	if m.rest == 0 {
		return s.write(m.raw)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.server.Write(m.raw); err != nil {
		return err
	}
	_, err := io.CopyN(s.server, r, m.rest)
	return err
}

// passCut passes clipboard text on, or types it.
func (s *session) passCut(r io.Reader, m *clientMessage) error {
	in, _ := m.input().(CutText)
	plain := int32(binary.BigEndian.Uint32(m.raw[4:])) >= 0 // else compressed
	if plain && m.rest == 0 {
		s.publish(in)
	}
	if !s.proxy.typeCut {
		return s.passRaw(r, m)
	}
	if plain && m.rest > 0 {
		text := make([]byte, MaxCut)
		if _, err := io.ReadFull(r, text); err != nil {
			return err
		}
		m.rest -= MaxCut
		in = CutText{Text: fromLatin1(text), Truncated: true}
		s.publish(in)
	}
	if plain {
		s.typeText(in)
	}
	_, err := io.CopyN(io.Discard, r, m.rest)
	return err
}

// dropEncodings takes out of SetEncodings what would change the form of the
// client's messages once the server agreed: pointer events of another length
// and, where clipboard text is typed, the compressed clipboard.
func dropEncodings(m *clientMessage, typeCut bool) {
	kept := m.raw[:4]
	for b := m.raw[4:]; len(b) >= 4; b = b[4:] {
		enc := Encoding(binary.BigEndian.Uint32(b))
		if enc == encExtendedMouse || enc == encExtendedClipboard && typeCut {
			continue
		}
		kept = append(kept, b[:4]...)
	}
	binary.BigEndian.PutUint16(kept[2:], uint16((len(kept)-4)/4))
	m.raw = kept
}

// opaque copies the rest of the client's side without understanding it.
func (s *session) opaque(r *bufio.Reader, reason string) error {
	s.log.Warn("VNC client cannot be followed any more; its input is passed on but not recorded", "reason", reason)
	s.publish(Opaque{Reason: reason})
	s.stopTyping() // a key in the middle of an unknown message would break it
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := io.Copy(s.server, r)
	return err
}

func (s *session) publish(in Input) {
	s.proxy.publish(Event{Time: time.Now(), Client: s.id, Input: in})
}

// write sends whole messages to the server.
func (s *session) write(b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.server.Write(b); err != nil {
		return fmt.Errorf("pass on to the machine: %w", err)
	}
	return nil
}

func (s *session) close() { s.stopTyping() }
