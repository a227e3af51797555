package linux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

const (
	// batch is how many requests go to the kernel in one system call; their
	// answers must fit the socket's receive buffer.
	batch = 64
	// sockets is how many callers may talk to the kernel at once. Changes wait
	// for the one lock of rtnetlink anyway.
	sockets    = 4
	recvBuffer = 1 << 20
)

// conn speaks rtnetlink (rtnetlink(7)) in batches over sockets that belong to
// one network namespace.
type conn struct {
	free   chan *socket
	closed chan struct{}
}

type socket struct {
	fd  int
	seq uint32
	buf []byte
}

// dial opens the sockets in the network namespace of the calling thread.
func dial() (*conn, error) {
	c := &conn{free: make(chan *socket, sockets), closed: make(chan struct{})}
	for range sockets {
		s, err := open()
		if err != nil {
			for len(c.free) > 0 {
				unix.Close((<-c.free).fd)
			}
			return nil, err
		}
		c.free <- s
	}
	return c, nil
}

func open() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("cannot open netlink socket: %w", err)
	}
	for _, opt := range []int{unix.NETLINK_EXT_ACK, unix.NETLINK_CAP_ACK} {
		_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1) // only makes errors plainer
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, recvBuffer) // a batch fits the default, too
	// Answers come while the request is sent, so a wait means that one was lost.
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 30})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot set up netlink socket: %w", err)
	}
	return &socket{fd: fd, buf: make([]byte, 1<<16)}, nil
}

// close waits for the sockets that are in use. It must be called once.
func (c *conn) close() {
	close(c.closed)
	for range sockets {
		unix.Close((<-c.free).fd)
	}
}

func (c *conn) with(ctx context.Context, f func(*socket) error) error {
	select {
	case <-c.closed:
		return errClosed
	default:
	}
	select {
	case s := <-c.free:
		defer func() { c.free <- s }()
		return f(s)
	case <-c.closed:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

var errClosed = errs.New(errs.State, "the network is closed")

// do sends all requests and returns one error for each, nil where the kernel
// did it. Requests are carried out in order, also after one that failed. Once
// ctx has ended the rest is not sent.
func (c *conn) do(ctx context.Context, reqs []*nl.NetlinkRequest) []error {
	result := make([]error, len(reqs))
	err := c.with(ctx, func(s *socket) error {
		for at := 0; at < len(reqs); at += batch {
			end := min(at+batch, len(reqs))
			err := ctx.Err()
			if err == nil {
				err = s.exchange(reqs[at:end], result[at:end])
			}
			if err != nil {
				fill(result[at:], err)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		fill(result, err)
	}
	return result
}

func fill(to []error, err error) {
	for i := range to {
		if to[i] == nil {
			to[i] = err
		}
	}
}

// all is do for those who need every request to succeed: it returns the first error.
func (c *conn) all(ctx context.Context, reqs []*nl.NetlinkRequest) error {
	return first(c.do(ctx, reqs))
}

func first(all []error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}

// exchange sends one batch and gathers its acknowledgements.
func (s *socket) exchange(reqs []*nl.NetlinkRequest, result []error) error {
	base := s.seq + 1
	var out []byte
	for _, r := range reqs {
		s.seq++
		r.Seq = s.seq
		r.Flags |= unix.NLM_F_ACK
		out = append(out, r.Serialize()...)
		out = append(out, make([]byte, -len(out)&3)...)
	}
	if err := s.send(out); err != nil {
		return err
	}
	for left := len(reqs); left > 0; {
		err := s.receive(func(h unix.NlMsghdr, body []byte) {
			i := int(h.Seq - base)
			if h.Type == unix.NLMSG_ERROR && i >= 0 && i < len(reqs) {
				result[i] = ackError(h, body)
				left--
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// dump sends one request with NLM_F_DUMP and passes every answer to f.
func (c *conn) dump(ctx context.Context, r *nl.NetlinkRequest, f func(body []byte)) error {
	return c.with(ctx, func(s *socket) error {
		s.seq++
		r.Seq = s.seq
		r.Flags |= unix.NLM_F_DUMP
		if err := s.send(r.Serialize()); err != nil {
			return err
		}
		var done bool
		var failed error
		for !done {
			err := s.receive(func(h unix.NlMsghdr, body []byte) {
				switch {
				case h.Seq != r.Seq: // left over from a request that was given up
				case h.Type == unix.NLMSG_DONE:
					done = true
				case h.Type == unix.NLMSG_ERROR:
					done, failed = true, ackError(h, body)
				default:
					f(body)
				}
			})
			if err != nil {
				return err
			}
		}
		return failed
	})
}

func (s *socket) send(b []byte) error {
	for {
		err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return wrap("cannot send to the kernel's network", err)
		}
	}
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// receive reads one datagram and passes its messages on.
func (s *socket) receive(f func(h unix.NlMsghdr, body []byte)) error {
	n, from, err := unix.Recvfrom(s.fd, s.buf, 0)
	if errors.Is(err, unix.EINTR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("no answer from the kernel's network: %w", err)
	}
	if sa, ok := from.(*unix.SockaddrNetlink); !ok || sa.Pid != 0 {
		return nil // not from the kernel
	}
	for b := s.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
		h := unix.NlMsghdr{
			Len: binary.NativeEndian.Uint32(b), Type: binary.NativeEndian.Uint16(b[4:]),
			Flags: binary.NativeEndian.Uint16(b[6:]), Seq: binary.NativeEndian.Uint32(b[8:]),
		}
		if h.Len < unix.SizeofNlMsghdr || int(h.Len) > len(b) {
			return errors.New("malformed answer from the kernel's network")
		}
		f(h, b[unix.SizeofNlMsghdr:h.Len])
		b = b[min(int(h.Len+3)&^3, len(b)):]
	}
	return nil
}

// kernelError is an errno with the words that the kernel gave along.
type kernelError struct {
	errno unix.Errno
	text  string
}

func (e *kernelError) Error() string { return fmt.Sprintf("%s (%v)", e.text, e.errno) }
func (e *kernelError) Unwrap() error { return e.errno }

// ackError reads struct nlmsgerr: the negative errno, the header of the request
// and, with extended acknowledgements, a message.
func ackError(h unix.NlMsghdr, body []byte) error {
	if len(body) < 4 {
		return errors.New("malformed acknowledgement from the kernel's network")
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body)))
	if errno == 0 {
		return nil
	}
	if skip := 4 + unix.SizeofNlMsghdr; h.Flags&unix.NLM_F_ACK_TLVS != 0 && len(body) > skip {
		for kind, value := range attributes(body[skip:]) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				return &kernelError{errno, unix.ByteSliceToString(value)}
			}
		}
	}
	return errno
}
