package ping

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

func TestLoopback(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("raw sockets need root")
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		p, err := Dial(t.Context(), host)
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		defer p.Close()
		for seq := range 3 {
			if rtt, err := p.Echo(t.Context(), seq, time.Minute); err != nil || rtt <= 0 {
				t.Errorf("%s: %v, %v", host, rtt, err)
			}
		}
	}
}

func TestCancelAndTimeout(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("raw sockets need root")
	}
	p, err := Dial(t.Context(), "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.id ^= 1 // answers to somebody else
	wrong := *p
	wrong.id = p.id ^ 1
	if wrong.isReply([]byte{0, 0, 0, 0, byte(p.id >> 8), byte(p.id), 0, 1}, 1) {
		t.Error("takes an answer to another")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Echo(ctx, 1, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestBadHost(t *testing.T) {
	if _, err := Dial(t.Context(), "not a host"); err == nil {
		t.Error("no error")
	}
}

func FuzzReply(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, packet []byte) { (&Pinger{}).isReply(packet, 1) })
}
