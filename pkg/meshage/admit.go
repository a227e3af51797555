package meshage

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// How two nodes meet on a new connection, before anything else is spoken:
//
//	client  knock: 16 random bytes, 16 bytes of their MAC; no answer
//	both    TLS 1.3, each with a certificate that its node's key has signed
//	client  proof: MAC("client", exporter), 32 bytes
//	server  proof: MAC("server", exporter), 32 bytes, and hello
//	client  hello
//
// The knock turns strangers away for the price of one MAC; it may be replayed
// and so proves nothing. The proofs do: they are over keying material that only
// the two ends of this TLS connection can export (RFC 8446 section 7.5, RFC
// 5705), so they are of no use on another connection, and nobody in the middle
// can pass them on. A server shows its proof only to a client that has shown
// its own.
const (
	knockNonce = 16
	knockSize  = 32
	proofSize  = 32
	helloSize  = 1 + 32

	wireVersion   = 1
	wireProtocol  = "minimega-mesh/1"
	exporterLabel = "EXPORTER-minimega-mesh"

	// knockTime and admitTime bound the first bytes and the whole of it.
	knockTime = 2 * time.Second
	admitTime = 5 * time.Second
)

// Why a connection came to nothing, for the one who dialled.
var (
	errSelf       = errors.New("that is this node itself")
	errOtherKey   = errors.New("it has another mesh key, or one side has none")
	errOtherMesh  = errors.New("it is of another context")
	errStranger   = errors.New("no knock")
	errOtherOwner = errors.New("the process at the other end belongs to another user: set a mesh key to let it in")
)

// admission decides who gets in. It does not change after it is made.
type admission struct {
	id      peer.ID
	tls     *libp2ptls.Identity
	knock   []byte // keys
	proof   []byte
	context [32]byte // MAC of the context
}

// admitted is what the two sides know of each other afterwards.
type admitted struct {
	net.Conn
	peer peer.ID
	key  crypto.PubKey
}

func newAdmission(id crypto.PrivKey, key *Key, context string) (*admission, error) {
	self, err := peer.IDFromPrivateKey(id)
	if err != nil {
		return nil, err
	}
	t, err := libp2ptls.NewIdentity(id, libp2ptls.WithCertTemplate(timeless()))
	if err != nil {
		return nil, err
	}
	a := &admission{id: self, tls: t, knock: key.derive("knock"), proof: key.derive("proof")}
	copy(a.context[:], mac(key.derive("context"), []byte(context)))
	return a, nil
}

// timeless is a certificate that is valid at all times. Keys say who gets in;
// clocks do not, because that of a host may be anywhere.
func timeless() *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 section 4.1.2.5: no date
		Subject:      pkix.Name{CommonName: "minimega"},                // one is required
	}
}

// client admits this node at the other end of c, or says why not. It closes
// nothing.
func (a *admission) client(ctx context.Context, c net.Conn) (*admitted, error) {
	if err := c.SetDeadline(time.Now().Add(admitTime)); err != nil {
		return nil, err
	}
	knock := make([]byte, knockNonce, knockSize)
	if _, err := rand.Read(knock); err != nil {
		return nil, err
	}
	knock = append(knock, mac(a.knock, knock)[:knockSize-knockNonce]...)
	if _, err := c.Write(knock); err != nil {
		return nil, err
	}
	t, key, err := a.handshake(ctx, c, tls.Client)
	if err != nil {
		return nil, hungUp(err)
	}
	mine, theirs, err := a.proofs(t)
	if err != nil {
		return nil, err
	}
	if _, err := t.Write(mine); err != nil {
		return nil, hungUp(err)
	}
	answer := make([]byte, proofSize+helloSize)
	if _, err := io.ReadFull(t, answer); err != nil {
		return nil, hungUp(err)
	}
	if !hmac.Equal(answer[:proofSize], theirs) {
		return nil, errOtherKey
	}
	if _, err := t.Write(a.hello()); err != nil {
		return nil, err
	}
	return a.finish(t, key, answer[proofSize:])
}

// hungUp says what an end without a word means here: the other side was not
// convinced.
func hungUp(err error) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer: %w", err)
	}
	if ended(err) {
		return errOtherKey
	}
	return fmt.Errorf("the TLS handshake failed: %w", err)
}

// ended reports whether err is the end of a connection, and nothing worse.
func ended(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// strangers reads the knock. It costs whoever does not know the key all that
// they can cost.
func (a *admission) strangers(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(knockTime)); err != nil {
		return err
	}
	var knock [knockSize]byte
	if _, err := io.ReadFull(c, knock[:]); err != nil {
		return err
	}
	if !hmac.Equal(knock[knockNonce:], mac(a.knock, knock[:knockNonce])[:knockSize-knockNonce]) {
		return errStranger
	}
	return nil
}

// server lets the other end of c in after its knock, or says why not.
func (a *admission) server(ctx context.Context, c net.Conn) (*admitted, error) {
	if err := c.SetDeadline(time.Now().Add(admitTime)); err != nil {
		return nil, err
	}
	t, key, err := a.handshake(ctx, c, tls.Server)
	if err != nil {
		return nil, err
	}
	theirs, mine, err := a.proofs(t)
	if err != nil {
		return nil, err
	}
	proof := make([]byte, proofSize)
	if _, err := io.ReadFull(t, proof); err != nil {
		return nil, err
	}
	if !hmac.Equal(proof, theirs) {
		return nil, errOtherKey
	}
	if _, err := t.Write(append(mine, a.hello()...)); err != nil {
		return nil, err
	}
	hello := make([]byte, helloSize)
	if _, err := io.ReadFull(t, hello); err != nil {
		return nil, err
	}
	return a.finish(t, key, hello)
}

// handshake runs TLS and returns the key of the node at the other end.
func (a *admission) handshake(ctx context.Context, c net.Conn, side func(net.Conn, *tls.Config) *tls.Conn) (*tls.Conn, crypto.PubKey, error) {
	config, keys := a.tls.ConfigForPeer("")
	config.NextProtos = []string{wireProtocol}
	config.DynamicRecordSizingDisabled = true // files want throughput, and small messages fit one record
	t := side(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, nil, err
	}
	select {
	case key := <-keys:
		if key != nil {
			return t, key, nil
		}
	default:
	}
	return nil, nil, errors.New("no certificate")
}

// proofs returns what the client and what the server of t must show.
func (a *admission) proofs(t *tls.Conn) (client, server []byte, err error) {
	state := t.ConnectionState()
	if state.NegotiatedProtocol != wireProtocol {
		return nil, nil, fmt.Errorf("it does not speak %s", wireProtocol)
	}
	secret, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, nil, err
	}
	return mac(a.proof, secret, []byte("client")), mac(a.proof, secret, []byte("server")), nil
}

// hello is said to who has the key: version and MAC of the context, no name.
func (a *admission) hello() []byte {
	return append(append(make([]byte, 0, helloSize), wireVersion), a.context[:]...)
}

// checkHello says whether the other side's hello is one to talk to.
func (a *admission) checkHello(b []byte) error {
	if len(b) != helloSize {
		return errors.New("malformed hello")
	}
	if b[0] != wireVersion {
		return fmt.Errorf("it speaks version %d of the mesh protocol, this node version %d: run the same minimega on both", b[0], wireVersion)
	}
	if !hmac.Equal(b[1:], a.context[:]) {
		return errOtherMesh
	}
	return nil
}

func (a *admission) finish(t *tls.Conn, key crypto.PubKey, hello []byte) (*admitted, error) {
	if err := a.checkHello(hello); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPublicKey(key)
	if err != nil {
		return nil, err
	}
	if id == a.id {
		return nil, errSelf
	}
	return &admitted{Conn: t, peer: id, key: key}, t.SetDeadline(time.Time{})
}
