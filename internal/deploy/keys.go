package deploy

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"minimega/internal/errs"
)

// keyring is how this daemon proves who it is and recognises others.
type keyring struct {
	password  string // instead of signers
	signers   []ssh.Signer
	agent     net.Conn // nil without one
	tried     []string // where keys were looked for, for errors
	known     ssh.HostKeyCallback
	record    string // file for new hosts
	acceptNew bool
}

// userName is the user that this daemon runs as.
func userName() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", errs.WithRemedy(fmt.Errorf("the name of this user: %w", err), "name the user of the other hosts")
	}
	return u.Username, nil
}

func newKeyring(record string, acceptNew bool, password string) (*keyring, error) {
	k := &keyring{record: record, acceptNew: acceptNew, password: password}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/" // a daemon started without an environment
	}
	if err := k.readKnown(filepath.Join(home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"); err != nil {
		return nil, err
	}
	if password != "" {
		return k, nil
	}
	k.askAgent(os.Getenv("SSH_AUTH_SOCK"))
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		k.readKey(filepath.Join(home, ".ssh", name))
	}
	if len(k.signers) == 0 {
		k.close()
		return nil, errs.WithRemedy(errs.New(errs.Permission, "no key to log in with: %s", strings.Join(k.tried, ", ")),
			"start minimega with SSH_AUTH_SOCK of an agent that has one, make ~/.ssh/id_ed25519, or give a password: deploy HOSTS USER PASSWORD")
	}
	return k, nil
}

func (k *keyring) close() {
	if k.agent != nil {
		_ = k.agent.Close()
	}
}

// readKnown reads the files with the keys of other hosts.
func (k *keyring) readKnown(files ...string) error {
	files = slices.DeleteFunc(append(files, k.record), func(f string) bool {
		_, err := os.Stat(f)
		return f == "" || errors.Is(err, fs.ErrNotExist)
	})
	known, err := knownhosts.New(files...)
	if err != nil {
		return errs.WithRemedy(errs.New(errs.Invalid, "known hosts: %w", err), "mend or remove that line")
	}
	k.known = known
	return nil
}

// askAgent adds the keys of an agent, see ssh-agent(1).
func (k *keyring) askAgent(socket string) {
	if socket == "" {
		k.tried = append(k.tried, "no agent (SSH_AUTH_SOCK is not set)")
		return
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		k.tried = append(k.tried, fmt.Sprintf("agent: %v", err))
		return
	}
	k.agent = conn
	signers, err := agent.NewClient(conn).Signers()
	if err != nil {
		k.tried = append(k.tried, fmt.Sprintf("agent: %v", err))
		return
	}
	k.signers = append(k.signers, signers...)
	k.tried = append(k.tried, fmt.Sprintf("agent with %d keys", len(signers)))
}

// readKey adds the key in a file, if there is one that needs no passphrase.
func (k *keyring) readKey(path string) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var signer ssh.Signer
	if err == nil {
		signer, err = ssh.ParsePrivateKey(text)
	}
	locked := (*ssh.PassphraseMissingError)(nil)
	switch {
	case errors.As(err, &locked):
		k.tried = append(k.tried, path+" (needs a passphrase, which only an agent can have)")
	case err != nil:
		k.tried = append(k.tried, fmt.Sprintf("%s (%v)", path, err))
	default:
		k.signers = append(k.signers, signer)
		k.tried = append(k.tried, path)
	}
}

// auth is how to log in. A password goes to those servers too that ask for it
// as a question.
func (k *keyring) auth() []ssh.AuthMethod {
	if k.password == "" {
		return []ssh.AuthMethod{ssh.PublicKeys(k.signers...)}
	}
	asked := false
	return []ssh.AuthMethod{ssh.Password(k.password), ssh.KeyboardInteractive(
		func(_, _ string, questions []string, echos []bool) ([]string, error) {
			if len(questions) == 0 {
				return nil, nil
			}
			if asked || len(questions) != 1 || echos[0] {
				return nil, errors.New("it asks for more than a password")
			}
			asked = true
			return []string{k.password}, nil
		})}
}

// algorithms are those of the keys that are known of a host, so that it shows
// one of these; nil if none is known.
func (k *keyring) algorithms(addr string) (list []string) {
	var unknown *knownhosts.KeyError
	if !errors.As(k.known(addr, &net.TCPAddr{IP: net.IPv4zero}, noKey{}), &unknown) {
		return nil
	}
	for _, key := range unknown.Want {
		switch t := key.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			list = append(list, ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512)
		default:
			list = append(list, t)
		}
	}
	return list
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                            { return "none" }
func (noKey) Marshal() []byte                         { return []byte("none") }
func (noKey) Verify(_ []byte, _ *ssh.Signature) error { return errors.New("no key") }

// check is the ssh.HostKeyCallback.
func (k *keyring) check(addr string, remote net.Addr, key ssh.PublicKey) error {
	err := k.known(addr, remote, key)
	var wrong *knownhosts.KeyError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &wrong):
		return errs.New(errs.Permission, "its host key: %w", err)
	case len(wrong.Want) > 0:
		old := wrong.Want[0]
		return errs.WithRemedy(errs.New(errs.Permission, "its host key is not the known one but %s %s: it was installed anew, or is another host", key.Type(), ssh.FingerprintSHA256(key)),
			fmt.Sprintf("make sure which, and remove line %d of %s", old.Line, old.Filename))
	case k.acceptNew:
		return k.remember(addr, key)
	}
	host := knownhosts.Normalize(addr)
	return errs.WithRemedy(errs.New(errs.Permission, "its host key %s %s is not known", key.Type(), ssh.FingerprintSHA256(key)),
		fmt.Sprintf("compare it and add it: `ssh-keyscan %s >>~/.ssh/known_hosts`; or let `deploy hostkeys new` accept all that are new", host))
}

// remember records the key of a new host.
func (k *keyring) remember(addr string, key ssh.PublicKey) error {
	f, err := os.OpenFile(k.record, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("its host key cannot be recorded: %w", err)
	}
	var line bytes.Buffer // written at once, because other hosts' lines come at the same time
	fmt.Fprintf(&line, "%s %s %s\n", knownhosts.Normalize(addr), key.Type(), base64.StdEncoding.EncodeToString(key.Marshal()))
	_, err = f.Write(line.Bytes())
	return errors.Join(err, f.Close())
}
