package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-yamux/v5"

	"minimega/bench/figure"
	"minimega/pkg/meshage"
)

const (
	volume = 512 << 20
	chunk  = 256 << 10
)

// streams measures one stream between two nodes over TCP on the loopback,
// encrypted, beside yamux on bare TCP.
func streams() error {
	key, err := meshage.GenerateKey()
	if err != nil {
		return err
	}
	var nodes []*meshage.Node
	for _, name := range []string{"a", "b"} {
		n, err := meshage.New(context.Background(), meshage.Options{Name: name, Key: key, Transport: loopback{}})
		if err != nil {
			return err
		}
		defer n.Close()
		nodes = append(nodes, n)
	}
	nodes[1].Handle("sink", func(_ context.Context, _ string, s meshage.Stream) { sink(s) })
	if err := nodes[0].Dial(context.Background(), fmt.Sprintf("127.0.0.1:%d", nodes[1].Status().Port)); err != nil {
		return err
	}
	var ours, theirs []time.Duration
	for range 5 {
		s, err := nodes[0].Open(context.Background(), "b", "sink")
		if err != nil {
			return err
		}
		t, err := figure.Time(func() error { return pour(s) })
		if err = errors.Join(err, s.Close()); err != nil {
			return err
		}
		ours = append(ours, t)
		if t, err = bare(); err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	figure.Against("512 MiB over a stream, TLS", ours, "bare TCP + yamux", theirs, "-")
	figure.Alone("  that is", fmt.Sprintf("%.0f and %.0f MB/s", rate(ours), rate(theirs)), "-")
	return nil
}

func rate(d []time.Duration) float64 { return float64(volume) / 1e6 / figure.Median(d).Seconds() }

// sink reads to the end and says so.
func sink(s io.ReadWriter) {
	buffer := make([]byte, chunk)
	for {
		if _, err := s.Read(buffer); err != nil {
			break
		}
	}
	_, _ = s.Write([]byte{1})
}

// pour writes the volume and waits until it has arrived.
func pour(s interface {
	io.ReadWriter
	CloseWrite() error
}) error {
	buffer := make([]byte, chunk)
	for range volume / chunk {
		if _, err := s.Write(buffer); err != nil {
			return err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return err
	}
	_, err := io.ReadFull(s, buffer[:1])
	return err
}

func bare() (time.Duration, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	config := yamux.DefaultConfig()
	config.MaxStreamWindowSize = 16 << 20
	config.LogOutput = io.Discard
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		m, err := yamux.Server(c, config, nil)
		if err != nil {
			return
		}
		if s, err := m.AcceptStream(); err == nil {
			sink(s)
		}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return 0, err
	}
	m, err := yamux.Client(c, config, nil)
	if err != nil {
		return 0, err
	}
	defer m.Close()
	s, err := m.OpenStream(context.Background())
	if err != nil {
		return 0, err
	}
	return figure.Time(func() error { return pour(s) })
}

// loopback is TCP that shouts on no network.
type loopback struct{ meshage.TCP }

func (loopback) Listen(port int, _ bool) (net.Listener, error) {
	return meshage.TCP{}.Listen(port, true)
}
func (loopback) Beacons(int, string) (meshage.Beacons, error) {
	return silence{make(chan struct{})}, nil
}

type silence struct{ done chan struct{} }

func (s silence) Send([]byte) error { return nil }
func (s silence) Receive([]byte) (int, netip.Addr, error) {
	<-s.done
	return 0, netip.Addr{}, net.ErrClosed
}
func (s silence) Close() error { close(s.done); return nil }
