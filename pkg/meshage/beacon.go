package meshage

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
)

// beacon is what a node shouts on the local network. On the wire it is sealed
// with AES-256-GCM under a key made from the mesh's, with the context as what
// is authenticated besides: without key and context it is noise.
type beacon struct {
	id      peer.ID
	port    uint16
	seeking bool
}

const (
	maxBeacon = 256
	maxPeerID = 64
)

type beaconSeal struct {
	aead    cipher.AEAD
	context []byte
}

func newBeaconSeal(key *Key, context string) (*beaconSeal, error) {
	block, err := aes.NewCipher(key.derive("beacon"))
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &beaconSeal{aead, mac(key.derive("beacon context"), []byte(context))}, nil
}

func (s *beaconSeal) seal(b beacon) ([]byte, error) {
	plain := []byte{wireVersion, 0}
	if b.seeking {
		plain[1] = 1
	}
	plain = binary.BigEndian.AppendUint16(plain, b.port)
	plain = append(plain, b.id...)
	nonce := make([]byte, s.aead.NonceSize(), maxBeacon)
	if _, err := rand.Read(nonce); err != nil {
		return nil, err
	}
	return s.aead.Seal(nonce, nonce, plain, s.context), nil
}

// open reads a datagram from anybody.
func (s *beaconSeal) open(datagram []byte) (beacon, error) {
	n := s.aead.NonceSize()
	if len(datagram) > maxBeacon || len(datagram) < n {
		return beacon{}, errors.New("no beacon: size")
	}
	plain, err := s.aead.Open(nil, datagram[:n], datagram[n:], s.context)
	if err != nil {
		return beacon{}, err
	}
	return parseBeacon(plain)
}

func parseBeacon(plain []byte) (beacon, error) {
	if len(plain) < 5 || len(plain) > 4+maxPeerID || plain[0] != wireVersion || plain[1] > 1 {
		return beacon{}, errors.New("malformed beacon")
	}
	id, err := peer.IDFromBytes(plain[4:])
	if err != nil {
		return beacon{}, err
	}
	return beacon{id: id, seeking: plain[1] == 1, port: binary.BigEndian.Uint16(plain[2:])}, nil
}
