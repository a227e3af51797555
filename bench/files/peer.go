package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
)

const (
	barePort = 7000
	tlsPort  = 7001
)

// peers are what a copy by this project stands beside: the same file from the
// same host, without hashes, over bare TCP and over TLS 1.3.
type peers struct{ bare, tls net.Listener }

func servePeers(path string) (*peers, error) {
	config, err := serverConfig()
	if err != nil {
		return nil, err
	}
	bare, err := net.Listen("tcp", ":"+strconv.Itoa(barePort))
	if err != nil {
		return nil, err
	}
	secure, err := tls.Listen("tcp", ":"+strconv.Itoa(tlsPort), config)
	if err != nil {
		return nil, errors.Join(err, bare.Close())
	}
	go send(bare, path, func(c net.Conn, f *os.File) error {
		_, err := io.Copy(c, f) // the kernel does it, without a copy
		return err
	})
	go send(secure, path, func(c net.Conn, f *os.File) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{f}, make([]byte, 256<<10))
		return err
	})
	return &peers{bare, secure}, nil
}

// Close ends what servePeers has begun.
func (p *peers) Close() error { return errors.Join(p.bare.Close(), p.tls.Close()) }

// send sends the file to whoever connects. A receiver notices if not all comes.
func send(l net.Listener, path string, do func(net.Conn, *os.File) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			f, err := os.Open(path)
			if err != nil {
				return
			}
			defer f.Close()
			_ = do(c, f)
		}()
	}
}

// serverConfig is that of a server which proves nothing: the copy's cost counts.
func serverConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}

func bareCopy(from, to string) error {
	c, err := net.Dial("tcp", net.JoinHostPort(from, strconv.Itoa(barePort)))
	if err != nil {
		return err
	}
	return receive(c, to)
}

func tlsCopy(from, to string) error {
	c, err := tls.Dial("tcp", net.JoinHostPort(from, strconv.Itoa(tlsPort)),
		&tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true})
	if err != nil {
		return err
	}
	return receive(c, to)
}

func receive(c net.Conn, to string) error {
	defer c.Close()
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	// Faster than splice, which io.Copy would use: into tmpfs that costs double.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{c}, make([]byte, 256<<10))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	return errors.Join(err, f.Close())
}
