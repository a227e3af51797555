package iomeshage

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"minimega/pkg/meshage"
)

// A stream of the mesh costs several copies and small records. So where two
// hosts can reach each other, chunks go over a TCP connection of their own: the
// one that serves says on a stream of the mesh, which is encrypted and proves
// who it is, at which port it waits for this one connection, and gives the
// keys. All that is sent on it is sealed with AES-GCM, in records of blocks.
const (
	directProtocol = "iomeshage/direct/3"
	directTimeout  = 3 * time.Second
	maxInvitation  = 1 << 10
	recordHeader   = 4
	maxRecord      = blockSize + 4*frameHeader // of plain text
	keySize        = 16
)

// invitation is how to come to a direct connection.
type invitation struct {
	Port   int    `json:"port"`
	Token  []byte `json:"token"`  // the first that is sent
	Ask    []byte `json:"ask"`    // key of what the guest sends
	Answer []byte `json:"answer"` // key of what the host sends
	Plain  bool   `json:"plain,omitempty"`
}

func (v *invitation) check() error {
	if v.Port < 1 || v.Port > 65535 || len(v.Token) != keySize || len(v.Ask) != keySize || len(v.Answer) != keySize {
		return errGarbage
	}
	return nil
}

// invite serves the protocol that makes direct connections.
func (s *Service) invite(ctx context.Context, from string, stream meshage.Stream) {
	if !s.enter() {
		return
	}
	defer s.leave()
	conn, err := s.await(ctx, from, stream)
	_ = stream.Close()
	if err != nil {
		s.opts.Log.Debug("file distribution: no direct connection", "peer", from, "err", err)
		return
	}
	s.serve(ctx, from, conn)
}

// await listens for one connection from a member, tells it where, and waits.
func (s *Service) await(ctx context.Context, from string, stream meshage.Stream) (meshage.Stream, error) {
	bind := s.bindFor(from)
	if bind == "" {
		return nil, errors.New("its address is not known")
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(bind, "0"))
	if err != nil {
		return nil, err
	}
	defer l.Close()
	deadline := time.Now().Add(directTimeout)
	v := invitation{Port: l.Addr().(*net.TCPAddr).Port, Token: secret(), Ask: secret(), Answer: secret(), Plain: s.opts.Plain}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	_ = stream.SetDeadline(deadline)
	if _, err := stream.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), body...)); err != nil {
		return nil, err
	}
	if err := l.(*net.TCPListener).SetDeadline(deadline); err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil, err
		}
		// A stranger may hold this up for the rest of the time, not longer.
		_ = c.SetDeadline(deadline)
		token := make([]byte, keySize)
		if _, err := io.ReadFull(c, token); err == nil && subtle.ConstantTimeCompare(token, v.Token) == 1 {
			return v.connection(c.(*net.TCPConn), v.Ask, v.Answer)
		}
		_ = c.Close()
	}
}

func secret() []byte {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails
	return b
}

// bindFor is the address to listen on for a member: one that only this host
// can reach if that is where it is, "" if that is not known.
func (s *Service) bindFor(member string) string {
	switch a := s.addressOf(member); {
	case !a.IsValid():
		return ""
	case a.IsLoopback():
		return a.String()
	case a.Is4():
		return "0.0.0.0"
	}
	return "::"
}

func (s *Service) addressOf(member string) netip.Addr {
	for _, m := range s.network().Members() {
		if m.Name == member {
			a, _ := netip.ParseAddr(m.Address)
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// direct opens a connection of our own to a member.
func (s *Service) direct(ctx context.Context, to string) (meshage.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	address := s.addressOf(to)
	if !address.IsValid() {
		return nil, fmt.Errorf("the address of %s is not known", to)
	}
	stream, err := s.network().Open(ctx, to, directProtocol)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(directTimeout))
	v, err := readInvitation(stream)
	if err == nil && v.Plain && !s.opts.Plain {
		err = fmt.Errorf("%s offers to send unencrypted only", to)
	}
	if err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(address.String(), strconv.Itoa(v.Port)))
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(v.Token); err != nil {
		_ = c.Close()
		return nil, err
	}
	return v.connection(c.(*net.TCPConn), v.Answer, v.Ask)
}

// connection makes what chunks travel over of a connection that proved itself.
func (v *invitation) connection(c *net.TCPConn, open, seal []byte) (meshage.Stream, error) {
	_ = c.SetDeadline(time.Time{})
	if v.Plain {
		return &plain{c}, nil
	}
	return newSealed(c, open, seal)
}

// plain is a TCP connection as it is.
type plain struct{ *net.TCPConn }

// Reset lets the other side see an error.
func (c *plain) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}

func readInvitation(r io.Reader) (v invitation, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return v, unexpected(err)
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxInvitation {
		return v, errGarbage
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return v, unexpected(err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return v, errGarbage
	}
	return v, v.check()
}

// sealed is a TCP connection on which all is encrypted and authenticated. A
// record is four bytes of length, which are authenticated too, and what
// AES-GCM makes of the content; its nonce is the number of the record.
type sealed struct {
	*net.TCPConn
	open, seal cipher.AEAD
	got, sent  uint64
	in, out    []byte
	rest       []byte // of in, plain and not read yet
}

func newSealed(c *net.TCPConn, open, seal []byte) (*sealed, error) {
	o, err1 := aead(open)
	w, err2 := aead(seal)
	if err := errors.Join(err1, err2); err != nil {
		_ = c.Close()
		return nil, err
	}
	return &sealed{TCPConn: c, open: o, seal: w}, nil
}

func aead(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

func nonce(n uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n) }

func (c *sealed) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), maxRecord)]
		if c.out == nil {
			c.out = make([]byte, recordHeader, recordHeader+maxRecord+c.seal.Overhead())
		}
		binary.BigEndian.PutUint32(c.out[:recordHeader], uint32(len(piece)))
		record := c.seal.Seal(c.out[:recordHeader], nonce(c.sent), piece, c.out[:recordHeader])
		c.sent++
		if _, err := c.TCPConn.Write(record); err != nil {
			return n, err
		}
		n, p = n+len(piece), p[len(piece):]
	}
	return n, nil
}

func (c *sealed) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		if err := c.record(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *sealed) lend(n int) (b []byte, ok bool) {
	if n > len(c.rest) {
		return nil, false
	}
	b, c.rest = c.rest[:n], c.rest[n:]
	return b, true
}

// record reads the next record.
func (c *sealed) record() error {
	var head [recordHeader]byte
	if _, err := io.ReadFull(c.TCPConn, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n == 0 || n > maxRecord {
		return errGarbage
	}
	if c.in == nil {
		c.in = make([]byte, maxRecord+c.open.Overhead())
	}
	body := c.in[:n+c.open.Overhead()]
	if _, err := io.ReadFull(c.TCPConn, body); err != nil {
		return unexpected(err)
	}
	plain, err := c.open.Open(body[:0], nonce(c.got), body, head[:])
	if err != nil {
		return fmt.Errorf("a record is not authentic: %w", err)
	}
	c.got++
	c.rest = plain
	return nil
}

// Reset lets the other side see an error.
func (c *sealed) Reset() error {
	_ = c.SetLinger(0)
	return c.Close()
}
