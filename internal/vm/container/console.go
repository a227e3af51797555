package container

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	scrollback = 1920 // bytes: a screen of 80 by 24
	// clientTime is how long a client may keep the others waiting.
	clientTime = 2 * time.Second
)

// console passes bytes between a container's terminal and any number of
// clients, on a socket in the instance directory and on a TCP port.
type console struct {
	master    *os.File
	listeners []net.Listener
	log       *slog.Logger
	wg        sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	last    []byte     // what was shown last
	clients map[net.Conn]bool
	closed  bool
}

// openConsole serves a terminal, which it closes in Close, also if it fails.
func openConsole(master *os.File, path, host string, log *slog.Logger) (*console, error) {
	c := &console{master: master, log: log, clients: map[net.Conn]bool{}}
	if err := os.RemoveAll(path); err != nil { // of an earlier daemon
		return nil, err
	}
	local, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	c.listeners = append(c.listeners, local)
	port, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, errors.Join(err, local.Close())
	}
	c.listeners = append(c.listeners, port)
	for _, l := range c.listeners {
		c.wg.Go(func() { c.accept(l) })
	}
	c.wg.Go(c.show)
	return c, nil
}

// port is the TCP port.
func (c *console) port() int { return c.listeners[1].Addr().(*net.TCPAddr).Port }

func (c *console) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of one connection, or too many files are open
			c.log.Warn("console", "err", err)
			continue
		}
		c.welcome(conn)
	}
}

// welcome sends what was shown last, so that nothing is missed or seen twice.
func (c *console) welcome(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return
	}
	if !send(conn, c.last) {
		_ = conn.Close()
		return
	}
	c.clients[conn] = true
	c.wg.Go(func() {
		// The error is that of a client that went, or of a container that did.
		_, _ = io.Copy(writer{c.master}, conn)
		c.drop(conn)
	})
}

// writer hides what else a file can do from io.Copy: splice(2) to a terminal
// waits where no deadline reaches.
type writer struct{ io.Writer }

func send(conn net.Conn, b []byte) bool {
	err := conn.SetWriteDeadline(time.Now().Add(clientTime))
	if err == nil {
		_, err = conn.Write(b)
	}
	return err == nil
}

func (c *console) drop(conn net.Conn) {
	c.mu.Lock()
	delete(c.clients, conn)
	c.mu.Unlock()
	_ = conn.Close()
}

// show passes on what the container writes, until it ends or Close.
func (c *console) show() {
	buf := make([]byte, 1024)
	for {
		n, err := c.master.Read(buf)
		if n > 0 {
			c.spread(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

// spread remembers b and sends it to all clients; one that does not take it is
// let go.
func (c *console) spread(b []byte) {
	c.mu.Lock()
	c.last = append(c.last, b...)
	if over := len(c.last) - scrollback; over > 0 {
		c.last = slices.Delete(c.last, 0, over)
	}
	clients := make([]net.Conn, 0, len(c.clients))
	for conn := range c.clients {
		clients = append(clients, conn)
	}
	c.mu.Unlock()
	for _, conn := range clients {
		if !send(conn, b) {
			c.drop(conn)
		}
	}
}

// Close ends all connections. The terminal itself lives on with the keeper.
func (c *console) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	for conn := range c.clients {
		_ = conn.Close()
	}
	c.mu.Unlock()
	if was {
		return nil
	}
	failed := []error{c.master.Close()}
	for _, l := range c.listeners {
		failed = append(failed, l.Close())
	}
	c.wg.Wait()
	return errors.Join(failed...)
}
