package meshage

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const (
	keySize   = 32
	keyHeader = "minimega mesh key 1"
	// keyLimit bounds a key file and a token, in bytes.
	keyLimit = 4096
)

// Key is the secret that the nodes of a mesh share. Who has it is a member
// with all rights; who has not learns nothing.
type Key struct{ secret [keySize]byte }

// GenerateKey makes a new key from the system's random source.
func GenerateKey() (*Key, error) {
	k := &Key{}
	if _, err := rand.Read(k.secret[:]); err != nil {
		return nil, fmt.Errorf("make a mesh key: %w", err)
	}
	return k, nil
}

// openKey is what nodes without a key use, so that they speak the same
// protocol: anybody can compute it, and it protects nothing.
func openKey() *Key {
	return &Key{secret: sha256.Sum256([]byte("minimega open mesh"))}
}

// derive makes the key for one purpose, so that what is said for one of them
// proves nothing for another.
func (k *Key) derive(purpose string) []byte {
	m := hmac.New(sha256.New, k.secret[:])
	m.Write([]byte("minimega mesh 1 " + purpose))
	return m.Sum(nil)
}

// mac is HMAC-SHA256 (RFC 2104) over the parts in order. Parts before the last
// have a fixed size at each use, so no two lists give one text.
func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// MarshalText is the content of a key file: a header line and the secret in
// base64.
func (k *Key) MarshalText() ([]byte, error) {
	return []byte(keyHeader + "\n" + base64.StdEncoding.EncodeToString(k.secret[:]) + "\n"), nil
}

// UnmarshalText reads what MarshalText wrote.
func (k *Key) UnmarshalText(text []byte) error {
	header, rest, found := strings.Cut(string(text), "\n")
	if !found || strings.TrimSpace(header) != keyHeader {
		return fmt.Errorf("not a mesh key: the first line is not %q", keyHeader)
	}
	return k.decode(strings.TrimSpace(rest), base64.StdEncoding)
}

func (k *Key) decode(text string, enc *base64.Encoding) error {
	raw, err := enc.Strict().DecodeString(text)
	if err != nil || len(raw) != keySize {
		return fmt.Errorf("not a mesh key: want %d bytes in base64", keySize)
	}
	copy(k.secret[:], raw)
	return nil
}

// Save writes the key to a new file that its owner alone may read. It fails if
// the file exists: a key that others hold must not vanish by accident.
func (k *Key) Save(path string) error {
	text, _ := k.MarshalText() // cannot fail
	return writeSecret(path, text)
}

// LoadKey reads a key file. Nobody but its owner may have access to it.
func LoadKey(path string) (*Key, error) {
	text, err := readSecret(path)
	if err != nil {
		return nil, fmt.Errorf("mesh key: %w", err)
	}
	k := &Key{}
	if err := k.UnmarshalText(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// writeSecret makes a file of mode 0600 that is there in full or not at all.
func writeSecret(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // the link below keeps the content
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}

// readSecret reads a small regular file and refuses one that others may read
// or write.
func readSecret(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): chmod 600 it, or make a new key if somebody did", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(bufio.NewReader(f), keyLimit+1))
	if err == nil && len(text) > keyLimit {
		err = fmt.Errorf("%s is too large for what it should be", path)
	}
	return bytes.TrimRight(text, "\x00"), err
}

const tokenPrefix = "mm1"

// Token is one line that lets another host join: key, context and the
// addresses at which nodes listen. Who reads it can join.
func (k *Key) Token(addresses []netip.AddrPort, context string) string {
	b64 := base64.RawURLEncoding
	list := make([]string, len(addresses))
	for i, a := range addresses {
		list[i] = a.String()
	}
	return strings.Join([]string{tokenPrefix, b64.EncodeToString(k.secret[:]), b64.EncodeToString([]byte(context)),
		b64.EncodeToString([]byte(strings.Join(list, ",")))}, ".")
}

// ParseToken reads what Token wrote.
func ParseToken(token string) (k *Key, addresses []netip.AddrPort, context string, err error) {
	token = strings.TrimSpace(token)
	parts := strings.Split(token, ".")
	if len(token) > keyLimit || len(parts) != 4 || parts[0] != tokenPrefix {
		return nil, nil, "", fmt.Errorf("not a mesh token: it is one line that begins with %q, from `minimega mesh token`", tokenPrefix+".")
	}
	k = &Key{}
	if err := k.decode(parts[1], base64.RawURLEncoding); err != nil {
		return nil, nil, "", fmt.Errorf("mesh token: %w", err)
	}
	name, err1 := base64.RawURLEncoding.Strict().DecodeString(parts[2])
	list, err2 := base64.RawURLEncoding.Strict().DecodeString(parts[3])
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, "", fmt.Errorf("mesh token: %w", err)
	}
	for a := range strings.SplitSeq(string(list), ",") {
		if a == "" {
			continue
		}
		ap, err := netip.ParseAddrPort(a)
		if err != nil {
			return nil, nil, "", fmt.Errorf("mesh token: address %q: %w", a, err)
		}
		addresses = append(addresses, ap)
	}
	return k, addresses, string(name), nil
}
