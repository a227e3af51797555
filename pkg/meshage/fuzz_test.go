package meshage

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func fixedKey() *Key { return &Key{secret: [keySize]byte{1, 2, 3}} }

func somePeer(t testing.TB) peer.ID {
	t.Helper()
	k, err := newIdentity()
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKeyFile(t *testing.T) {
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadKey(path); err != nil || *got != *k {
		t.Errorf("load: %v", err)
	}
	if err := k.Save(path); err == nil {
		t.Error("a key was overwritten")
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("%d files left, %v", len(left), err)
	}
	if _, err := LoadKey(filepath.Dir(path)); err == nil {
		t.Error("a directory")
	}
}

func TestToken(t *testing.T) {
	k := fixedKey()
	at := []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:9000"), netip.MustParseAddrPort("[fd00::1]:9001")}
	token := k.Token(at, "a context.")
	got, addresses, context, err := ParseToken(token + "\n")
	if err != nil || *got != *k || context != "a context." || len(addresses) != 2 || addresses[0] != at[0] || addresses[1] != at[1] {
		t.Errorf("%q: %v %q %v", token, addresses, context, err)
	}
	if strings.ContainsAny(token, " \n") {
		t.Errorf("%q is not one word", token)
	}
}

func FuzzKeyFile(f *testing.F) {
	text, _ := fixedKey().MarshalText()
	f.Add(text)
	f.Add([]byte(keyHeader + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k := &Key{}
		if k.UnmarshalText(b) != nil {
			return
		}
		again := &Key{}
		if text, _ := k.MarshalText(); again.UnmarshalText(text) != nil || *again != *k {
			t.Error("not read back")
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add([]byte(identityHeader + "\nAAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseIdentity(b) })
}

func FuzzToken(f *testing.F) {
	f.Add(fixedKey().Token([]netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:9000")}, "minimega"))
	f.Add("mm1...")
	f.Fuzz(func(t *testing.T, s string) {
		k, at, context, err := ParseToken(s)
		if err != nil {
			return
		}
		if k2, at2, context2, err := ParseToken(k.Token(at, context)); err != nil || *k2 != *k || context2 != context || len(at2) != len(at) {
			t.Errorf("not read back: %v", err)
		}
	})
}

func TestBeaconSeal(t *testing.T) {
	id := somePeer(t)
	seal, _ := newBeaconSeal(fixedKey(), "x")
	want := beacon{id: id, port: 9000, seeking: true}
	b, err := seal.seal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := seal.open(b); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if bytes.Contains(b, []byte(id)) {
		t.Error("the beacon can be read")
	}
	otherContext, _ := newBeaconSeal(fixedKey(), "y")
	otherKey, _ := newBeaconSeal(openKey(), "x")
	for _, s := range []*beaconSeal{otherContext, otherKey} {
		if _, err := s.open(b); err == nil {
			t.Error("a stranger reads the beacon")
		}
	}
}

func FuzzBeacon(f *testing.F) {
	seal, _ := newBeaconSeal(fixedKey(), "x")
	b, _ := seal.seal(beacon{id: somePeer(f), port: 1})
	f.Add(b)
	f.Add(append([]byte{1, 0, 35, 40}, somePeer(f)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = seal.open(b)
		if got, err := parseBeacon(b); err == nil {
			if again, err := seal.seal(got); err != nil {
				t.Error(err)
			} else if back, err := seal.open(again); err != nil || back != got {
				t.Errorf("not read back: %v", err)
			}
		}
	})
}

func FuzzHeader(f *testing.F) {
	h := header{kind: kindCall, hops: 3, from: somePeer(f), to: somePeer(f), protocol: "x"}
	f.Add(h.append(nil)[2:])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHeader(b)
		if err == nil && !bytes.Equal(h.append(nil)[2:], b) {
			t.Error("not written as read")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(appendPayload(appendStatus(nil, statusOK, ""), []byte("reply")))
	f.Add(appendStatus(nil, statusFailed, "why"))
	f.Add([]byte{0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x1f})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		if readStatus(r) == nil {
			if p, err := readPayload(r); err == nil && len(p) > len(b) {
				t.Errorf("%d bytes of %d", len(p), len(b))
			}
		}
	})
}

func FuzzCast(f *testing.F) {
	f.Add(appendCast(somePeer(f), 1, 2, "topic", []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseCast(b) })
}

func FuzzHello(f *testing.F) {
	id, err := newIdentity()
	if err != nil {
		f.Fatal(err)
	}
	a, err := newAdmission(id, fixedKey(), "x")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.hello())
	f.Fuzz(func(t *testing.T, b []byte) {
		if a.checkHello(b) == nil && !bytes.Equal(b, a.hello()) {
			t.Error("another hello was taken")
		}
	})
}

// What comes before and in the handshake, from anybody.
func FuzzAdmission(f *testing.F) {
	id, err := newIdentity()
	if err != nil {
		f.Fatal(err)
	}
	a, err := newAdmission(id, fixedKey(), "x")
	if err != nil {
		f.Fatal(err)
	}
	nonce := make([]byte, knockNonce)
	knock := append(nonce, mac(a.knock, nonce)[:knockSize-knockNonce]...)
	f.Add(knock)
	f.Add(append(knock, 22, 3, 1, 0, 5, 1, 0, 0, 1, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		mine, theirs := net.Pipe()
		defer mine.Close()
		go func() {
			defer theirs.Close()
			_ = theirs.SetDeadline(time.Now().Add(time.Second))
			go func() { _, _ = bufio.NewReader(theirs).WriteTo(discard{}) }()
			_, _ = theirs.Write(b)
		}()
		if a.strangers(mine) != nil {
			return
		}
		if _, err := a.server(context.Background(), mine); err == nil {
			t.Error("let in")
		}
	})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func FuzzSockets(f *testing.F) {
	local, remote := netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:9000")
	f.Add("  sl  local_address rem_address   st\n   0: 0100007F:1F90 0100007F:2328 01 00000000:00000000 00:00000000 00000000  1000        0 1\n")
	f.Fuzz(func(t *testing.T, table string) { _, _ = findSocket(strings.NewReader(table), local, remote) })
}

func TestFindSocket(t *testing.T) {
	table := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n" +
		"   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     1        0 1\n" +
		"   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:2328 01 00000000:00000000 00:00000000 00000000  1000        0 1\n"
	uid, ok := findSocket(strings.NewReader(table), netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:9000"))
	if !ok || uid != 1000 {
		t.Errorf("%d, %v", uid, ok)
	}
}
