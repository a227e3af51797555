package vnc

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Options say how a client talks to its server. The zero value is a client
// that shares the screen with others and can decode all it asks for.
type Options struct {
	Exclusive bool       // ask the server to send the others away
	Version33 bool       // speak RFB 3.3, whatever the server can
	Encodings []Encoding // in order of preference; nil: all that can be decoded
	Discard   bool       // keep no pixels; Encodings must then be Raw, CopyRect and pseudo-encodings
}

// handshakeTime bounds a handshake whose context has no deadline.
const handshakeTime = 10 * time.Second

// Client is one connection to an RFB server, in the standard pixel format.
// Sending is safe for all goroutines at any time; Next and Image belong to one.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
	tap  *tap
	dec  *decoder
	name string

	mu  sync.Mutex // guards the writing side: a message at a time
	buf []byte
}

// Dial connects through dial and shakes hands.
func Dial(ctx context.Context, dial func(context.Context) (net.Conn, error), opts Options) (*Client, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	return NewClient(ctx, conn, opts)
}

// NewClient shakes hands on conn (RFC 6143 §7.1 to §7.3), without
// authentication, and sets pixel format and encodings. The connection is
// closed when that fails.
func NewClient(ctx context.Context, conn net.Conn, opts Options) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	t := &tap{r: conn}
	c := &Client{conn: conn, tap: t, r: bufio.NewReaderSize(t, 64<<10)}
	err := c.handshake(opts)
	if !stop() && err == nil {
		err = ctx.Err() // the deadline may strike any time now
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("VNC handshake: %w", errors.Join(err, ctx.Err()))
	}
	return c, nil
}

func (c *Client) handshake(opts Options) error {
	version, err := c.agreeVersion(opts.Version33)
	if err != nil {
		return err
	}
	if err := c.agreeSecurity(version); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte{flag(!opts.Exclusive)}); err != nil {
		return err
	}
	if err := c.serverInit(opts.Discard); err != nil {
		return err
	}
	if err := c.SetPixelFormat(StandardFormat()); err != nil {
		return err
	}
	encs := opts.Encodings
	if encs == nil {
		encs = []Encoding{EncCopyRect, EncTight, EncZlib, EncRaw, EncDesktopSize, EncExtendedDesktopSize, EncLastRect}
	}
	return c.SetEncodings(encs)
}

// agreeVersion returns the minor version: 3, 7 or 8.
func (c *Client) agreeVersion(only33 bool) (int, error) {
	b := make([]byte, banner)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return 0, noEOF(err)
	}
	server, err := parseVersion(b)
	if err != nil {
		return 0, err
	}
	minor, reply := server, version33
	switch {
	case only33:
		minor = 3
	case server == 7:
		reply = version37
	case server == 8:
		reply = version38
	}
	_, err = io.WriteString(c.conn, reply)
	return minor, err
}

// parseVersion returns the minor version that a banner stands for. What is
// neither 3.7 nor 3.8 or later counts as 3.3 (RFC 6143 §7.1.1).
func parseVersion(b []byte) (int, error) {
	var major, minor int
	if _, err := fmt.Sscanf(string(b), "RFB %03d.%03d\n", &major, &minor); err != nil || major < 3 {
		return 0, fmt.Errorf("peer does not speak RFB: it said %q", b)
	}
	switch {
	case major > 3 || minor >= 8:
		return 8, nil
	case minor == 7:
		return 7, nil
	}
	return 3, nil
}

func (c *Client) agreeSecurity(version int) error {
	if version == 3 {
		kind, err := c.uint32()
		if err != nil {
			return err
		}
		return c.checkSecurity(kind, kind == secNone)
	}
	n, err := c.r.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	kinds := make([]byte, n)
	if _, err := io.ReadFull(c.r, kinds); err != nil {
		return noEOF(err)
	}
	if err := c.checkSecurity(uint32(n), strings.IndexByte(string(kinds), secNone) >= 0); err != nil {
		return err
	}
	if _, err := c.conn.Write([]byte{secNone}); err != nil || version == 7 {
		return err
	}
	result, err := c.uint32()
	if err == nil && result != 0 {
		err = c.refusal()
	}
	return err
}

// checkSecurity turns a server's offer without "None" into an error; first is
// zero when the server refuses and says why.
func (c *Client) checkSecurity(first uint32, ok bool) error {
	switch {
	case ok:
		return nil
	case first == 0:
		return c.refusal()
	}
	return errors.New("server asks for a password or another authentication, which is not supported")
}

func (c *Client) refusal() error {
	n, err := c.uint32()
	if err != nil {
		return err
	}
	reason := make([]byte, min(n, maxReason))
	got, _ := io.ReadFull(c.r, reason)
	return fmt.Errorf("server refused: %q", reason[:got])
}

func (c *Client) uint32() (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(c.r, b[:])
	return binary.BigEndian.Uint32(b[:]), noEOF(err)
}

func (c *Client) serverInit(discard bool) error {
	head := make([]byte, 24)
	if _, err := io.ReadFull(c.r, head); err != nil {
		return noEOF(err)
	}
	n := binary.BigEndian.Uint32(head[20:])
	if n > maxName {
		return fmt.Errorf("server's name is %d bytes long", n)
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(c.r, name); err != nil {
		return noEOF(err)
	}
	c.name = string(name)
	var err error
	c.dec, err = newDecoder(c.r, int(binary.BigEndian.Uint16(head)), int(binary.BigEndian.Uint16(head[2:])), discard)
	return err
}

// Name is what the server calls its screen.
func (c *Client) Name() string { return c.name }

// Size returns the screen's size in pixels.
func (c *Client) Size() (w, h int) { return c.dec.size() }

// Image is the screen as the last Next left it; the next one changes it.
func (c *Client) Image() *image.RGBA { return c.dec.screen }

// Next reads the server's next message and applies it. The message is nil
// when it has no meaning here. Close ends the wait.
func (c *Client) Next() (ServerMessage, error) { return c.dec.next() }

// Idle tells whether nothing of the server's next message has been read yet.
// It belongs to the goroutine that calls Next.
func (c *Client) Idle() bool { return c.r.Buffered() == 0 }

// Tap copies all that the server sends from now on to w, before it is
// understood. It belongs to the goroutine that calls Next.
func (c *Client) Tap(w io.Writer) error {
	ahead, _ := c.r.Peek(c.r.Buffered())
	if len(ahead) > 0 {
		if _, err := w.Write(ahead); err != nil {
			return err
		}
	}
	c.tap.w = w
	return nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// tap copies what is read to w, once that is set.
type tap struct {
	r io.Reader
	w io.Writer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if n > 0 && t.w != nil {
		if _, werr := t.w.Write(p[:n]); werr != nil {
			return 0, werr
		}
	}
	return n, err
}
