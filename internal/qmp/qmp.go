// Package qmp is a client of QEMU's machine protocol
// (https://www.qemu.org/docs/master/interop/qmp-spec.html): JSON objects, one
// per line, over a unix socket. Calls may run side by side; each reply finds
// its call by id. Events wait in a bounded queue, so that a slow reader never
// stalls a reply. QEMU may be in the hands of a hostile guest: what it sends
// is bounded and may end the connection, never this program.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"minimega/internal/errs"
)

// Limits of what QEMU may send.
const (
	maxMessage = 16 << 20 // bytes of one message; query-qmp-schema has about 200,000
	eventQueue = 1024
)

// Error is a command that QEMU refused.
type Error struct {
	Class string // such as GenericError, CommandNotFound, DeviceNotFound
	Desc  string // QEMU's words
}

func (e *Error) Error() string { return e.Desc + " (" + e.Class + ")" }

// Event is something that QEMU told unasked.
type Event struct {
	Name string
	Data json.RawMessage // object, or nil
	Time time.Time       // zero when QEMU did not know
}

// Client is a connection past its handshake. Its methods may be called by any
// goroutine.
type Client struct {
	conn   net.Conn
	events chan Event
	done   chan struct{} // closed when the reader has ended
	turn   chan struct{} // holds one token: the right to write

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan *message
	dropped uint64
	err     error // why the connection ended
}

// Dial connects to the socket and shakes hands. ctx bounds both.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, errs.New(errs.Unreachable, "QMP socket: %w", err)
	}
	return New(ctx, conn)
}

// New shakes hands on conn, which it owns from then on, also when it fails.
func New(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{
		conn: conn, events: make(chan Event, eventQueue), done: make(chan struct{}),
		turn: make(chan struct{}, 1), waiting: map[uint64]chan *message{},
	}
	r := bufio.NewReader(conn)
	if err := c.greet(ctx, r); err != nil {
		_ = conn.Close()
		return nil, errs.New(errs.Unreachable, "QMP greeting: %w", err)
	}
	go c.read(r)
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("QMP handshake: %w", err)
	}
	return c, nil
}

// maxStray is how many messages may come before the greeting.
const maxStray = 1000

// greet reads up to QEMU's greeting. Before it may come what was meant for an
// earlier client: events and replies.
func (c *Client) greet(ctx context.Context, r *bufio.Reader) error {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetReadDeadline(time.Unix(1, 0)) })
	m, err := readMessage(r)
	for n := 0; err == nil && m.QMP == nil && n < maxStray; n++ {
		m, err = readMessage(r)
	}
	if !stop() {
		return ctx.Err()
	}
	switch {
	case err != nil:
		return err
	case m.QMP == nil:
		return errors.New("not a QMP server")
	}
	return nil
}

// Execute runs a command. args is marshalled to its arguments, nil for none;
// the result is unmarshalled into out unless that is nil. A refusal by QEMU is
// an *Error.
func (c *Client) Execute(ctx context.Context, command string, args, out any) error {
	return c.execute(ctx, nil, command, args, out)
}

// ExecuteWith is Execute for a command that takes a file along, such as getfd.
// The connection must be a unix socket. The caller keeps the file.
func (c *Client) ExecuteWith(ctx context.Context, file *os.File, command string, args, out any) error {
	return c.execute(ctx, file, command, args, out)
}

func (c *Client) execute(ctx context.Context, file *os.File, command string, args, out any) error {
	req := struct {
		Execute string `json:"execute"`
		Args    any    `json:"arguments,omitempty"`
		ID      uint64 `json:"id"`
	}{Execute: command, Args: args}
	m, err := c.call(ctx, file, func(id uint64) ([]byte, error) {
		req.ID = id
		return json.Marshal(req)
	})
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	if m.Error != nil {
		return errs.New(errs.State, "QMP %s: %w", command, m.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, out); err != nil {
		return fmt.Errorf("QMP %s: unexpected reply: %w", command, err)
	}
	return nil
}

// Raw sends a request as typed and returns the reply as QEMU wrote it, a
// refusal too. The request must be an object; its id, if any, comes back.
func (c *Client) Raw(ctx context.Context, request json.RawMessage) (json.RawMessage, error) {
	var req map[string]json.RawMessage
	if err := json.Unmarshal(request, &req); err != nil {
		return nil, errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if req == nil {
		return nil, errs.New(errs.Invalid, "invalid JSON: null is no request")
	}
	theirs, has := req["id"]
	m, err := c.call(ctx, nil, func(id uint64) ([]byte, error) {
		req["id"] = strconv.AppendUint(nil, id, 10)
		return json.Marshal(req)
	})
	if err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	if !has {
		theirs = nil
	}
	return m.verbatim(theirs), nil
}

// call sends what build makes of a fresh id, with a file unless that is nil,
// and waits for the reply.
func (c *Client) call(ctx context.Context, file *os.File, build func(id uint64) ([]byte, error)) (*message, error) {
	id, reply, err := c.register()
	if err != nil {
		return nil, err
	}
	defer c.forget(id)
	b, err := build(id)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err)
	}
	if err := c.write(ctx, file, append(b, '\n')); err != nil {
		return nil, err
	}
	select {
	case m := <-reply:
		return m, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.done:
	}
	select { // the reply may have been the last thing read
	case m := <-reply:
		return m, nil
	default:
		return nil, c.Err()
	}
}

func (c *Client) register() (uint64, chan *message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, nil, c.err
	}
	c.next++
	ch := make(chan *message, 1) // the reader never waits for a caller
	c.waiting[c.next] = ch
	return c.next, ch, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// write sends one message whole. A message cut short by ctx ends the
// connection: QEMU could not tell where the next one begins.
func (c *Client) write(ctx context.Context, file *os.File, b []byte) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.Err()
	}
	defer func() { <-c.turn }()
	if err := ctx.Err(); err != nil {
		return err
	}
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.conn.SetWriteDeadline(time.Unix(1, 0))
		close(cut)
	})
	n, err := send(c.conn, file, b)
	if !stop() {
		<-cut
		_ = c.conn.SetWriteDeadline(time.Time{}) // it bounds this write only
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ctx.Err()
		if n == 0 {
			return err
		}
	}
	c.fail(err)
	return c.Err()
}

// send writes b, with a file in its company (SCM_RIGHTS, see unix(7)).
func send(conn net.Conn, file *os.File, b []byte) (int, error) {
	if file == nil {
		return conn.Write(b)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errors.New("files pass through unix sockets only")
	}
	n, _, err := u.WriteMsgUnix(b, syscall.UnixRights(int(file.Fd())), nil)
	if err != nil || n == len(b) {
		return n, err
	}
	rest, err := conn.Write(b[n:])
	return n + rest, err
}

// fail records why the connection ended, and ends it.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err == nil {
		for _, closed := range []error{io.EOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
			if errors.Is(err, closed) {
				err = errors.New("connection closed")
			}
		}
		c.err = errs.New(errs.Unreachable, "QMP connection to %s: %w", c.conn.RemoteAddr(), err)
	}
	c.mu.Unlock()
	_ = c.conn.Close()
}

// Events returns what QEMU tells unasked, in order. The channel is closed when
// the connection ends. When nobody reads, the newest events are lost; Dropped
// counts them.
func (c *Client) Events() <-chan Event { return c.events }

// Dropped returns how many events were lost because nobody read them.
func (c *Client) Dropped() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err tells why the connection ended, nil before.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for its goroutine. QEMU goes on.
func (c *Client) Close() error {
	c.fail(net.ErrClosed)
	<-c.done
	return nil
}

// read hands each message to its reader until the connection ends.
func (c *Client) read(r *bufio.Reader) {
	defer close(c.done)
	defer close(c.events)
	for {
		m, err := readMessage(r)
		if err != nil {
			c.fail(err)
			return
		}
		if m.Event != "" {
			c.queue(m.event())
			continue
		}
		c.deliver(m)
	}
}

func (c *Client) queue(e Event) {
	select {
	case c.events <- e:
	default:
		c.mu.Lock()
		defer c.mu.Unlock()
		c.dropped++
	}
}

// deliver finds the call of a reply. A reply without an id is QEMU's answer to
// a request that it could not parse; since it answers in order, it belongs to
// the oldest call.
func (c *Client) deliver(m *message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	if err != nil {
		id = 0
		for w := range c.waiting {
			if id == 0 || w < id {
				id = w
			}
		}
	}
	if ch, ok := c.waiting[id]; ok {
		delete(c.waiting, id)
		ch <- m
	}
}
