package meshage

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
)

const identityHeader = "minimega mesh identity 1"

// identity returns the key pair that names this node: the one in path, which is
// made if it is not there, or a passing one if path is "".
func identity(path string) (crypto.PrivKey, error) {
	if path == "" {
		return newIdentity()
	}
	text, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return createIdentity(path)
	}
	if err != nil {
		return nil, fmt.Errorf("identity of this node: %w", err)
	}
	key, err := parseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("identity of this node: %s: %w; remove the file to get a new one", path, err)
	}
	return key, nil
}

func newIdentity() (crypto.PrivKey, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	return key, err
}

func parseIdentity(text []byte) (crypto.PrivKey, error) {
	header, rest, _ := strings.Cut(string(text), "\n")
	if header != identityHeader {
		return nil, fmt.Errorf("the first line is not %q", identityHeader)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(rest))
	if err != nil {
		return nil, err
	}
	return crypto.UnmarshalEd25519PrivateKey(raw)
}

func createIdentity(path string) (crypto.PrivKey, error) {
	key, err := newIdentity()
	if err != nil {
		return nil, err
	}
	raw, err := key.Raw()
	if err != nil {
		return nil, err
	}
	text := identityHeader + "\n" + base64.StdEncoding.EncodeToString(raw) + "\n"
	if err := writeSecret(path, []byte(text)); err != nil {
		if errors.Is(err, os.ErrExist) { // another start of this node was first
			return identity(path)
		}
		return nil, fmt.Errorf("write the identity of this node: %w", err)
	}
	return key, nil
}
