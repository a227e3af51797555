package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// How long a host may take to answer, to let us in, and to take note of what
// it was sent before it counts as lost.
const (
	dialTimeout  = 10 * time.Second
	loginTimeout = 20 * time.Second
	lostTimeout  = 20 * time.Second
	sessionGrace = 2 * time.Second
)

// remote is a connection to another host.
type remote struct {
	client *ssh.Client
}

func (r *remote) close() { _ = r.client.Close() }

// address is where a host listens: at port 22 unless it ends in :port.
func address(host string) string {
	if strings.Count(host, ":") == 1 {
		return host
	}
	return net.JoinHostPort(host, "22")
}

// connect logs in on a host.
func (p *plan) connect(ctx context.Context, host string) (*remote, error) {
	if err := checkWord("host", host); err != nil {
		return nil, err
	}
	addr := address(host)
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: lostTimeout / 4, Interval: lostTimeout / 4, Count: 3},
		Control:         noteLoss,
	}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, errs.Wrap(errs.Unreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	client, err := p.login(conn, addr)
	if !stop() && err == nil {
		_ = client.Close()
	}
	if err != nil || ctx.Err() != nil {
		_ = conn.Close()
		return nil, errors.Join(err, ctx.Err())
	}
	return &remote{client: client}, nil
}

// noteLoss makes a connection fail on which what was sent is not acknowledged.
func noteLoss(_, _ string, c syscall.RawConn) (err error) {
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(lostTimeout.Milliseconds()))
	})
	return errors.Join(err, cerr)
}

// login makes an SSH connection of a TCP one.
func (p *plan) login(conn net.Conn, addr string) (*ssh.Client, error) {
	if err := conn.SetDeadline(time.Now().Add(loginTimeout)); err != nil {
		return nil, err
	}
	known := false
	config := &ssh.ClientConfig{
		User: p.User, Auth: p.keys.auth(), HostKeyAlgorithms: p.keys.algorithms(addr),
		HostKeyCallback: func(addr string, remote net.Addr, key ssh.PublicKey) error {
			err := p.keys.check(addr, remote, key)
			known = err == nil
			return err
		},
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		return nil, p.explain(err, known)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// explain says why a login failed. known is whether the host was recognised.
func (p *plan) explain(err error, known bool) error {
	var ours *errs.Error
	var lost net.Error
	switch {
	case errors.As(err, &ours):
		return ours // about the host's key
	case errors.As(err, &lost) || !known:
		return errs.Wrap(errs.Unreachable, err)
	case p.Password != "":
		return errs.New(errs.Permission, "user %s is not let in with this password: %w", p.User, err)
	}
	return errs.New(errs.Permission, "user %s is not let in with keys of %s: %w", p.User, strings.Join(p.keys.tried, ", "), err)
}

// run runs a command line, in whose input in is written, and returns what it
// printed. The error of one that failed is what it printed to standard error.
// When ctx ends the command loses its input and output, and run returns.
func (r *remote) run(ctx context.Context, command string, in io.Reader) (string, error) {
	s, err := r.client.NewSession()
	if err != nil {
		return "", errs.Wrap(errs.Unreachable, err)
	}
	defer s.Close()
	stdout, stderr := &limited{}, &limited{}
	s.Stdin, s.Stdout, s.Stderr = in, stdout, stderr
	ended := make(chan error, 1)
	go func() { ended <- s.Run(command) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		r.giveUp(s, ended)
		return stdout.text(), context.Cause(ctx)
	}
	return stdout.text(), failure(err, stderr.text())
}

// giveUp ends a session, with the whole connection if it does not end at once.
func (r *remote) giveUp(s *ssh.Session, ended <-chan error) {
	_ = s.Close()
	late := time.NewTimer(sessionGrace)
	defer late.Stop()
	select {
	case <-ended:
	case <-late.C:
		r.close()
		<-ended
	}
}

// failure is the error of a command that ended so and printed said.
func failure(err error, said string) error {
	var exit *ssh.ExitError
	said = strings.TrimSpace(said)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && said != "":
		return errors.New(said)
	case errors.As(err, &exit):
		return fmt.Errorf("exit status %d", exit.ExitStatus())
	}
	return errs.New(errs.Unreachable, "connection lost: %w", err)
}

// maxSaid is how much of a command's output is kept: its first part.
const maxSaid = 16 << 10

// limited keeps the first bytes that are written, and takes all.
type limited struct{ kept bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.kept.Write(p[:min(len(p), maxSaid-l.kept.Len())])
	return len(p), nil
}

// text is what was kept, with what a terminal would obey made visible.
func (l *limited) text() string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(l.kept.String(), "?"))
}
