package container

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// behind is how many pieces of output a client may be behind the others
	// before it is let go; a piece has at most pieceSize bytes.
	behind = 256
	// consoleMost is how many clients a console has at most.
	consoleMost = 64
	pieceSize   = 4096
)

// console passes bytes between a container's terminal and any number of
// clients, on a socket in the instance directory and on a TCP port.
type console struct {
	master    *os.File
	raw       syscall.RawConn // of master
	listeners []*listener
	removes   []func() // from the poller
	lack      *shortage
	log       *slog.Logger
	wg        sync.WaitGroup // clients

	mu      sync.Mutex // guards the fields below; what is done under it never waits
	screen  *screen    // changed by show only
	clients map[*client]bool
	closed  bool
}

// client is one connection.
type client struct {
	conn net.Conn
	out  chan []byte // closed when the client is let go
}

// openConsole serves a terminal, which it closes in Close, as it does the screen
// that it fills.
func openConsole(p *poller, master *os.File, s *screen, path, host string, log *slog.Logger) (*console, error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &console{master: master, raw: raw, screen: s, lack: &p.lack, log: log}
	local, err := listenUnix(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	c.listeners = append(c.listeners, local)
	port, err := listenTCP(host)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", host, err), c.letGo())
	}
	c.listeners = append(c.listeners, port)
	for _, l := range c.listeners {
		err = errors.Join(err, c.watch(p, l.fd, func() answer { return c.accept(l) }))
	}
	if e := raw.Control(func(fd uintptr) { err = errors.Join(err, c.watch(p, int(fd), c.show)) }); e != nil {
		err = errors.Join(err, e)
	}
	if err != nil {
		return nil, errors.Join(err, c.letGo())
	}
	return c, nil
}

func (c *console) watch(p *poller, fd int, ready func() answer) error {
	remove, err := p.add(fd, ready)
	if err == nil {
		c.removes = append(c.removes, remove)
	}
	return err
}

// port is the TCP port.
func (c *console) port() int { return c.listeners[1].port }

// accept lets clients in, who first get what was shown last: nothing is missed
// or seen twice.
func (c *console) accept(l *listener) answer {
	conn, err := l.accept()
	c.lack.note(err)
	if err != nil {
		v := afterRefusal(err)
		if v == end {
			c.log.Warn("console takes no clients", "err", err)
		}
		return v
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return end
	}
	if len(c.clients) >= consoleMost {
		_ = conn.Close()
		return goOn
	}
	n := &client{conn: conn, out: make(chan []byte, behind)}
	if last := c.screen.text(); len(last) > 0 {
		n.out <- append([]byte(nil), last...)
	}
	if c.clients == nil {
		c.clients = map[*client]bool{}
	}
	c.clients[n] = true
	c.wg.Go(func() { c.send(n) })
	c.wg.Go(func() {
		// The error is that of a client that went, or of a container that did.
		_, _ = io.Copy(writer{c.master}, n.conn)
		c.drop(n)
	})
	return goOn
}

// writer hides what else a file can do from io.Copy: splice(2) to a terminal
// waits where Close does not reach.
type writer struct{ io.Writer }

// send writes to one client what is meant for it. One that does not read any
// more may still have typed something: who reads that notices the end.
func (c *console) send(n *client) {
	gone := false
	for b := range n.out {
		if !gone {
			_, err := n.conn.Write(b)
			gone = err != nil
		}
	}
}

func (c *console) drop(n *client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropLocked(n)
}

func (c *console) dropLocked(n *client) {
	if c.clients[n] {
		delete(c.clients, n)
		close(n.out)
		_ = n.conn.Close()
	}
}

// show passes on what the container writes. It is called by one goroutine.
func (c *console) show() answer {
	var buf [pieceSize]byte
	var n int
	var err error
	if closed := c.raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), buf[:]) }); closed != nil {
		return end
	}
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return goOn
	case err != nil || n == 0: // EIO: the container has ended
		return end
	}
	c.mu.Lock()
	c.screen.add(buf[:n])
	c.mu.Unlock()
	if err := c.screen.save(); err != nil {
		c.log.Warn("what the console shows is not kept for another daemon", "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.clients) == 0 {
		return goOn
	}
	b := append([]byte(nil), buf[:n]...)
	for k := range c.clients {
		select {
		case k.out <- b:
		default: // it does not keep up
			c.dropLocked(k)
		}
	}
	return goOn
}

// Close ends all connections. The terminal itself lives on with the keeper.
func (c *console) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return nil
	}
	err := errors.Join(c.letGo(), c.screen.close(), c.master.Close())
	c.mu.Lock()
	for n := range c.clients {
		c.dropLocked(n)
	}
	c.mu.Unlock()
	c.wg.Wait()
	return err
}

// letGo closes the listeners.
func (c *console) letGo() error {
	for _, remove := range c.removes {
		remove()
	}
	var failed []error
	for _, l := range c.listeners {
		failed = append(failed, l.Close())
	}
	return errors.Join(failed...)
}
