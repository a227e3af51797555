package vnc

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// samples are messages of clients, each with its length on the wire.
func samples() map[string][]byte {
	pad := func(n int, b ...byte) []byte { return append(b, make([]byte, n-len(b))...) }
	return map[string][]byte{
		"pixel format": pad(20, msgSetPixelFormat), "encodings": pad(4+12, msgSetEncodings, 0, 0, 3),
		"request": pad(10, msgUpdateRequest), "key": pad(8, msgKey, 1), "pointer": pad(6, msgPointer),
		"cut": pad(8+5, msgCut, 0, 0, 0, 0, 0, 0, 5), "extended cut": pad(8+5, msgCut, 0, 0, 0, 0xff, 0xff, 0xff, 0xfb),
		"continuous": pad(10, msgContinuousUpdates), "fence": pad(9+3, msgFence, 0, 0, 0, 0, 0, 0, 0, 3),
		"xvp": pad(4, msgXVP), "desktop size": pad(8+32, msgSetDesktopSize, 0, 0, 0, 0, 0, 2),
		"gii big": pad(4+6, msgGII, 0x81, 0, 6), "gii little": pad(4+6, msgGII, 1, 6, 0),
		"extended key": pad(12, msgQEMU, 0, 0, 1, 0, 0, 0, 'a'), "audio on": pad(4, msgQEMU, 1, 0, 0), "audio format": pad(10, msgQEMU, 1, 0, 2),
	}
}

func TestClientMessages(t *testing.T) {
	for name, msg := range samples() {
		r := bufio.NewReader(bytes.NewReader(append(bytes.Clone(msg), KeyEvent{true, 'z'}.Append(nil)...)))
		m, err := readClientMessage(r, nil)
		if err != nil || !bytes.Equal(m.raw, msg) {
			t.Errorf("%s: %v, %x", name, err, m.raw)
			continue
		}
		if m, err = readClientMessage(r, nil); err != nil || m.input() != (KeyEvent{true, 'z'}) {
			t.Errorf("after %s: %v", name, err)
		}
		if _, err := readClientMessage(bufio.NewReader(bytes.NewReader(msg[:len(msg)-1])), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s cut short: %v", name, err)
		}
	}
	ext := clientMessage{raw: samples()["extended key"]}
	if ext.input() != (KeyEvent{true, 'a'}) {
		t.Errorf("extended key is %v", ext.input())
	}
	for _, b := range [][]byte{{1}, {77, 1, 2}, {msgQEMU, 9, 0, 0}} {
		if _, err := readClientMessage(bufio.NewReader(bytes.NewReader(b)), nil); !errors.Is(err, ErrUnknownMessage) {
			t.Errorf("%v: %v", b, err)
		}
	}
}

// FuzzClientMessages: the parts that the parser cuts a stream into are the stream.
func FuzzClientMessages(f *testing.F) {
	for _, m := range samples() {
		f.Add(m)
	}
	f.Add([]byte{msgCut, 0, 0, 0, 0x80, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(stream), 16)
		var seen []byte
		for {
			m, err := readClientMessage(r, nil)
			if err != nil {
				break
			}
			m.input()
			seen = append(seen, m.raw...)
			if m.rest > 0 {
				break
			}
			if m.kind() == msgSetEncodings {
				dropEncodings(&m, true)
			}
		}
		if !bytes.HasPrefix(stream, seen) {
			t.Errorf("%x was cut into %x", stream, seen)
		}
	})
}

// says is a peer that says something, takes everything, and leaves.
type says struct{ io.Reader }

func sayer[T string | []byte](b T) net.Conn   { return says{bytes.NewReader([]byte(b))} }
func (says) Write(p []byte) (int, error)      { return len(p), nil }
func (says) Close() error                     { return nil }
func (says) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (says) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (says) SetDeadline(time.Time) error      { return nil }
func (says) SetReadDeadline(time.Time) error  { return nil }
func (says) SetWriteDeadline(time.Time) error { return nil }

// FuzzClient connects to servers that say anything.
func FuzzClient(f *testing.F) {
	init := append(append([]byte{0, 4, 0, 4}, StandardFormat().append(nil)...), 0, 0, 0, 1, 'x')
	f.Add(append([]byte(version38+"\x01\x01\x00\x00\x00\x00"), init...))
	f.Add(append([]byte(version33+"\x00\x00\x00\x01"), init...))
	f.Add([]byte(version37 + "\x00\x00\x00\x00\x04oops"))
	f.Add([]byte("RFB 003.889\n\x02\x02\x10"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := NewClient(context.Background(), sayer(b), Options{Discard: true})
		for err == nil {
			_, err = c.Next()
		}
	})
}

// FuzzServe lets clients say anything.
func FuzzServe(f *testing.F) {
	f.Add([]byte(version38 + "\x01\x01\x03\x00\x00\x00\x00\x00\x00\x08\x00\x08"))
	f.Add([]byte(version33 + "\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		screen, err := NewScreen(8, 8)
		if err != nil {
			t.Fatal(err)
		}
		_ = Serve(context.Background(), sayer(b), screen, "fuzz", func(Input) {})
	})
}

func TestClientHandshakeErrors(t *testing.T) {
	for name, c := range map[string]struct{ says, want string }{
		"not RFB": {"SSH-2.0-dropbear_2020\r\n", "does not speak RFB"}, "password": {version38 + "\x01\x02", "password"},
		"refusal": {version38 + "\x00\x00\x00\x00\x04busy", `"busy"`}, "refusal 3.3": {version33 + "\x00\x00\x00\x00\x00\x00\x00\x03bye", `"bye"`},
		"failure": {version38 + "\x01\x01\x00\x00\x00\x01\x00\x00\x00\x02no", `"no"`}, "cut": {version38 + "\x01", "unexpected EOF"},
		"huge":      {version33 + "\x00\x00\x00\x01\xff\xff\xff\xff" + strings.Repeat("\x00", 20), "larger than the limit"},
		"long name": {version33 + "\x00\x00\x00\x01" + strings.Repeat("\x00", 20) + "\xff\xff\xff\xff", "name is"},
	} {
		if _, err := NewClient(t.Context(), sayer(c.says), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	here, there := net.Pipe()
	defer there.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := NewClient(ctx, here, Options{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent server: %v", err)
	}
}

// FuzzSession lets a client say anything to a server that says anything.
func FuzzSession(f *testing.F) {
	f.Add([]byte(version33+"\x01"+"\x04\x01\x00\x00\x00\x00\x00a"), []byte(version38+"\x00\x00\x00\x01"), true)
	f.Add([]byte(version38+"\x02"+strings.Repeat("p", 16)+"\x00"+"\x06\x00\x00\x00\x00\x00\x00\x01a\x77"), []byte(version38), false)
	f.Fuzz(func(t *testing.T, client, server []byte, typeCut bool) {
		p := &Proxy{ctx: t.Context(), typeCut: typeCut}
		s := newSession(p, 1, sayer(client), sayer(server), quiet())
		go s.fromServer()
		_ = s.fromClient()
		s.close()
		<-s.head
	})
}
