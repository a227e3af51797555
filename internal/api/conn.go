package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"minimega/internal/command"
	"minimega/internal/errs"
	"minimega/pkg/minicli"
)

// conn is one client of the socket and the goroutine that serves it.
type conn struct {
	server   *Server
	nc       *net.UnixConn
	session  *command.Session
	requests *requests
	replies  *replies
	watch    *watch
	ctx      context.Context
	cancel   context.CancelCauseFunc

	mu      sync.Mutex // guards the fields below
	ending  bool       // no more requests are read
	current string     // the line that runs
}

func newConn(s *Server, nc *net.UnixConn) (*conn, error) {
	c := &conn{server: s, nc: nc, session: s.router.NewSession(), requests: newRequests(nc)}
	c.replies = &replies{w: c}
	c.ctx, c.cancel = context.WithCancelCause(s.ctx)
	w, err := newWatch(nc, c.rearm, func() { c.cancel(ErrClientGone) })
	if err != nil {
		c.cancel(err)
		return nil, err
	}
	c.watch = w
	return c, nil
}

// serve answers requests until the client or the server ends it.
func (c *conn) serve() {
	defer c.nc.Close() // nobody is left to tell
	defer c.cancel(errClosing)
	defer func() {
		if p := recover(); p != nil {
			c.server.log.Error("connection failed", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	for !c.isEnding() {
		q, err := c.requests.next()
		if err != nil {
			c.logEnd(err)
			return
		}
		if !c.answer(q) {
			return
		}
	}
}

// answer handles one request and reports whether another may follow.
func (c *conn) answer(q request) bool {
	switch {
	case q.PlumbPipe != "":
		c.pipe(q.PlumbPipe)
		return false
	case (q.Command == "") == (q.Suggest == ""):
		return c.refuse(errs.New(errs.Invalid, "must specify either command or suggest"))
	case q.Suggest != "":
		return c.replies.suggest(c.server.router.Suggest(c.ctx, c.session, q.Suggest)) == nil
	default:
		return c.run(q.Command)
	}
}

// run runs a command and sends its answer.
func (c *conn) run(line string) bool {
	c.setLine(line)
	c.watch.start()
	err := c.server.router.RunLine(c.ctx, c.session, line, c.replies.batch)
	c.watch.stop()
	c.setLine("")
	if errors.Is(err, command.ErrNoReply) {
		return false
	}
	return c.replies.end() == nil
}

// pipe switches the connection to pipe mode, for good.
func (c *conn) pipe(name string) {
	h := c.server.pipes
	if h == nil {
		c.refuse(errs.New(errs.Unsupported, "cannot attach to pipe %q: this minimega has no pipes", name))
		return
	}
	if err := c.plumb(c.ctx, h, name); err != nil {
		c.server.log.Warn("pipe ended", "pipe", name, "err", err)
	}
}

// refuse answers with an error.
func (c *conn) refuse(err error) bool {
	host := c.server.router.opts.Host
	b := command.Batch{Resps: minicli.Responses{{Host: host, Error: err.Error()}}, Flags: c.session.Flags()}
	return c.replies.batch(b) == nil && c.replies.end() == nil
}

// finish makes the command that runs the last one.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	c.nc.SetReadDeadline(time.Unix(1, 0)) // fails only when closed
	c.nc.SetWriteDeadline(time.Now().Add(lastWrite))
}

// Write sends p. Once the connection ends, a client has a moment to take it.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.ending {
		c.nc.SetWriteDeadline(time.Now().Add(lastWrite))
	}
	c.mu.Unlock()
	return c.nc.Write(p)
}

// endReads makes reads of the connection fail, now and later.
func (c *conn) endReads() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending = true
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// rearm lets reads wait again (on) or makes a waiting one fail.
func (c *conn) rearm(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on && !c.ending {
		c.nc.SetReadDeadline(time.Time{})
		return
	}
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

func (c *conn) isEnding() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.ending }

func (c *conn) setLine(l string) { c.mu.Lock(); c.current = l; c.mu.Unlock() }

func (c *conn) line() string { c.mu.Lock(); defer c.mu.Unlock(); return c.current }

// logEnd logs the end of a connection that sent what is no request.
func (c *conn) logEnd(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, net.ErrClosed) {
		return
	}
	c.server.log.Info("client sent what is no request, connection closed", "err", err)
}
