package minilog

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"minimega/internal/errs"
)

const (
	syslogTag     = "minimega"
	syslogTimeout = 5 * time.Second // to connect, and for each write
	facilityUser  = 1 << 3
)

// SetSyslog sends the log to the syslog server at address (network tcp or udp)
// instead of the one before. network "" is the local one. It connects within
// five seconds or fails.
//
// The standard library's log/syslog is not used: it cannot be given a deadline
// and does not exist on Windows, where the tools run too. Messages are those of
// RFC 3164, with the RFC 3339 time that current servers read.
func (l *Log) SetSyslog(ctx context.Context, network, address string) error {
	s := &syslog{network: network, address: address}
	ctx, cancel := context.WithTimeout(ctx, syslogTimeout)
	defer cancel()
	if err := s.dial(ctx); err != nil {
		return errs.New(errs.Unreachable, "connect to syslog: %w", err)
	}
	s.queue = newQueue(s.print)
	return l.set(Syslog, "", s)
}

// ClearSyslog stops logging to syslog.
func (l *Log) ClearSyslog() { _ = l.set(Syslog, "", nil) } // the connection is given up either way

// syslog is a connection to a syslog server; its queue's goroutine owns conn.
type syslog struct {
	*queue
	network, address string
	hostname         string
	conn             net.Conn
}

func (s *syslog) dial(ctx context.Context) error {
	var d net.Dialer
	if s.network != "" {
		c, err := d.DialContext(ctx, s.network, s.address)
		s.conn, s.hostname = c, hostname()
		return err
	}
	var last error
	for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
		for _, network := range []string{"unixgram", "unix"} {
			c, err := d.DialContext(ctx, network, path)
			if err == nil {
				s.conn = c
				return nil
			}
			last = err
		}
	}
	return last
}

func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return h
}

// print sends one entry. When the server has gone it connects anew, once.
func (s *syslog) print(e *entry) {
	line := s.format(e)
	for range 2 {
		if s.conn == nil {
			ctx, cancel := context.WithTimeout(context.Background(), syslogTimeout)
			err := s.dial(ctx)
			cancel()
			if err != nil {
				s.conn = nil
				return
			}
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(syslogTimeout))
		if _, err := s.conn.Write([]byte(line)); err == nil {
			return
		}
		_ = s.conn.Close()
		s.conn = nil
	}
}

func (s *syslog) format(e *entry) string {
	host := ""
	if s.hostname != "" {
		host = s.hostname + " "
	}
	text := e.source + ": " + e.text
	return fmt.Sprintf("<%d>%s %s%s[%d]: %s\n", facilityUser|severity(e.level), e.time.Format(s.layout()), host, syslogTag, os.Getpid(), text)
}

// layout is the time format: the local daemon reads the traditional one only.
func (s *syslog) layout() string {
	if s.network == "" {
		return time.Stamp
	}
	return time.RFC3339
}

// severity is the numerical severity of RFC 3164, section 4.1.1.
func severity(l slog.Level) int {
	switch {
	case l >= LevelFatal:
		return 2
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 6
	}
	return 7
}

func (s *syslog) close() error {
	err := s.queue.close()
	select {
	case <-s.done:
		if s.conn != nil {
			_ = s.conn.Close()
		}
	default: // the goroutine still has the connection, and a deadline
	}
	return err
}
