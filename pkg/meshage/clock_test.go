package meshage

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// A host gets in whatever its clock and ours say. Certificates that depend on
// the clock of who made them tell what would happen otherwise, and that the
// reason then given is not the key.
func TestClocks(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		template *x509.Certificate // nil for ours
		in       bool
	}{
		"ours":        {nil, true},
		"2 h ahead":   {madeAt(2 * time.Hour), false},
		"2 h behind":  {madeAt(-2 * time.Hour), true},
		"none behind": {madeAt(0), true},
	} {
		t.Run(name, func(t *testing.T) {
			// Either side may be the one whose clock is wrong.
			for _, atClient := range []bool{true, false} {
				client, server := admissionWith(t, key, nil), admissionWith(t, key, nil)
				if atClient {
					client = admissionWith(t, key, c.template)
				} else {
					server = admissionWith(t, key, c.template)
				}
				err := meet(t, client, server)
				if c.in != (err == nil) {
					t.Errorf("at the client %v: %v", atClient, err)
				}
				if err != nil && (errors.Is(err, errOtherKey) || !strings.Contains(err.Error(), "certificate")) {
					t.Errorf("at the client %v: a wrong reason: %v", atClient, err)
				}
			}
		})
	}
	config, _ := admissionWith(t, key, nil).tls.ConfigForPeer("")
	ours, err := x509.ParseCertificate(config.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ours)
	for _, year := range []int{1970, 2000, 2026, 2038, 2200} {
		now := time.Date(year, 1, 1, 0, 0, 1, 0, time.UTC)
		if _, err := ours.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now}); err != nil {
			t.Errorf("a clock at %v refuses our certificate: %v", now, err)
		}
	}
}

// madeAt is the certificate that libp2p makes where the clock is ahead by that much.
func madeAt(ahead time.Duration) *x509.Certificate {
	now := time.Now().Add(ahead)
	return &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(100 * 365 * 24 * time.Hour)}
}

// admissionWith makes a node's admission, with a certificate made from template
// unless that is nil.
func admissionWith(t *testing.T, key *Key, template *x509.Certificate) *admission {
	t.Helper()
	id, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAdmission(id, key, "context")
	if err != nil {
		t.Fatal(err)
	}
	if template != nil {
		own := *template // libp2p adds to it
		if a.tls, err = libp2ptls.NewIdentity(id, libp2ptls.WithCertTemplate(&own)); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

// meet has a client dial a server over TCP, and returns what it is told.
func meet(t *testing.T, client, server *admission) error {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if server.strangers(c) == nil {
			_, _ = server.server(t.Context(), c) // what the client is told is tested
		}
	}()
	defer func() { <-served }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = client.client(t.Context(), c)
	return err
}
