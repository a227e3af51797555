package deploy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server is a small SSH server in this process, on loopback, that runs commands
// of user "me" with password "secret" or a key.
type server struct {
	addr string
	host ssh.Signer
	// run answers a command; nil runs it by a shell.
	run func(command string, ch ssh.Channel) (status uint32)

	mu       sync.Mutex // guards the fields below
	commands []string
	working  sync.WaitGroup
}

func newSigner(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// serve starts a server that asks for the password in that way.
func serve(t *testing.T, s *server, asks bool) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	s.host, _ = newSigner(t)
	config := &ssh.ServerConfig{}
	check := func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
		if c.User() == "me" && string(password) == "secret" {
			return nil, nil
		}
		return nil, errors.New("no")
	}
	if asks {
		config.KeyboardInteractiveCallback = func(c ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errors.New("no answer")
			}
			return check(c, []byte(answers[0]))
		}
	} else {
		config.PasswordCallback = check
	}
	config.AddHostKey(s.host)
	var conns sync.WaitGroup
	s.working.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { s.conn(c, config) })
		}
	})
	t.Cleanup(func() { l.Close(); s.working.Wait(); conns.Wait() })
	return s
}

func (s *server) conn(nc net.Conn, config *ssh.ServerConfig) {
	defer nc.Close()
	_, channels, requests, err := ssh.NewServerConn(nc, config)
	if err != nil {
		return
	}
	var sessions sync.WaitGroup
	defer sessions.Wait()
	sessions.Go(func() { ssh.DiscardRequests(requests) })
	for n := range channels {
		ch, requests, err := n.Accept()
		if err != nil {
			return
		}
		sessions.Go(func() { s.session(ch, requests, &sessions) })
	}
}

func (s *server) session(ch ssh.Channel, requests <-chan *ssh.Request, sessions *sync.WaitGroup) {
	for r := range requests {
		if r.Type != "exec" {
			_ = r.Reply(false, nil)
			continue
		}
		var exec struct{ Command string }
		_ = ssh.Unmarshal(r.Payload, &exec)
		_ = r.Reply(true, nil)
		s.mu.Lock()
		s.commands = append(s.commands, exec.Command)
		s.mu.Unlock()
		run := s.run
		if run == nil {
			run = shell
		}
		sessions.Go(func() {
			status := run(exec.Command, ch)
			_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
			_ = ch.Close()
		})
	}
}

// shell runs a command as sshd does.
func shell(command string, ch ssh.Channel) uint32 {
	cmd := exec.Command("sh", "-c", command)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 255
	}
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	if err := cmd.Start(); err != nil {
		return 255
	}
	go func() { _, _ = io.Copy(in, ch); in.Close() }()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return uint32(exit.ExitCode())
	}
	return 0
}

func (s *server) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.commands, "\n")
}

// planFor is a plan to deploy with the password, which knows the servers.
func planFor(t *testing.T, password string, servers ...*server) *plan {
	t.Helper()
	home := t.TempDir()
	hosttest.Machine{Marks: []string{filepath.Dir(home)}}.Check(t) // the parent of all of the test's directories
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	var known bytes.Buffer
	for _, s := range servers {
		host, port, _ := net.SplitHostPort(s.addr)
		fmt.Fprintf(&known, "[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(s.host.PublicKey()))
	}
	write(t, filepath.Join(home, ".ssh", "known_hosts"), known.Bytes())
	d := New(Options{Host: "boss", KnownHosts: filepath.Join(home, "accepted"), Binary: filepath.Join(home, "program"), Log: slog.New(slog.DiscardHandler)})
	write(t, filepath.Join(home, "program"), []byte("#!/bin/sh\nexit 3\n"))
	p, err := d.prepare(Request{User: "me", Password: password})
	if err != nil {
		t.Fatal(err)
	}
	p.file = filepath.Join(t.TempDir(), "sent file's name")
	t.Cleanup(p.close)
	return p
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A server may ask for the password as a question; and whatever it is asked,
// the password is only ever the answer to one that is not shown.
func TestPasswordQuestion(t *testing.T) {
	s := serve(t, &server{}, true)
	r := planFor(t, "secret", s).launch(t.Context(), s.addr)
	if r.Err == nil || errs.FactsOf(r.Err).Step != "start" {
		t.Errorf("%v", r.Err)
	}
	r = planFor(t, "wrong", s).launch(t.Context(), s.addr)
	if !errors.Is(r.Err, errs.Permission) || !strings.Contains(r.Err.Error(), "user me is not let in with this password") {
		t.Errorf("wrong: %v", r.Err)
	}
	if said := s.said(); strings.Contains(said, "secret") || !strings.Contains(said, "minimega") {
		t.Errorf("commands: %s", said)
	}
}

// A program that does not start leaves neither itself nor the key there.
func TestStartFails(t *testing.T) {
	s := serve(t, &server{}, false)
	p := planFor(t, "secret", s)
	secret := filepath.Join(t.TempDir(), "key")
	write(t, secret, []byte("the key"))
	key, err := open(secret, "600")
	if err != nil {
		t.Fatal(err)
	}
	p.key = key
	r := p.launch(t.Context(), s.addr)
	if r.Err == nil || r.Err.Error() != "start: the program does not run there" || r.File != "" {
		t.Errorf("%+v", r)
	}
	if left, _ := filepath.Glob(filepath.Dir(p.file) + "/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if said := s.said(); strings.Count(said, quote(p.file)+" 700 ") != 1 || strings.Count(said, quote(p.file+".key")+" 600 ") != 1 {
		t.Errorf("commands: %s", said)
	}
}

// What is there stays, and what does not arrive whole is not there.
func TestSend(t *testing.T) {
	s := serve(t, &server{}, false)
	p := planFor(t, "secret", s)
	write(t, p.file, []byte("somebody else's"))
	r := p.launch(t.Context(), s.addr)
	if r.Err == nil || !strings.HasPrefix(r.Err.Error(), "send the program: ") || !strings.Contains(r.Err.Error(), "exist") {
		t.Errorf("a file that is there: %v", r.Err)
	}
	if text, _ := os.ReadFile(p.file); string(text) != "somebody else's" {
		t.Errorf("it is now %q", text)
	}
	p.file = filepath.Join(t.TempDir(), "f")
	sum := p.binary.sum
	p.binary.sum = strings.Repeat("0", 64)
	r = p.launch(t.Context(), s.addr)
	if r.Err == nil || !strings.Contains(r.Err.Error(), "what arrived is not what was sent") {
		t.Errorf("a wrong sum: %v", r.Err)
	}
	if _, err := os.Stat(p.file); err == nil {
		t.Error("it is there")
	}
	p.binary.sum = sum
	p.binary.size++ // the program's file is shorter than it was
	if r = p.launch(t.Context(), s.addr); r.Err == nil {
		t.Error("a file that changed was sent")
	}
	if _, err := os.Stat(p.file); err == nil {
		t.Error("it is there")
	}
}

// A host that stops answering does not hold up who gives up; nor does one that
// never was SSH.
func TestCancel(t *testing.T) {
	begun := make(chan bool, 10)
	release := make(chan bool)
	defer close(release)
	s := serve(t, &server{run: func(string, ssh.Channel) uint32 { begun <- true; <-release; return 0 }}, false)
	p := planFor(t, "secret", s)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	start := time.Now()
	r := p.launch(ctx, s.addr)
	if !errors.Is(r.Err, context.Canceled) || time.Since(start) > time.Minute {
		t.Errorf("after %v: %v", time.Since(start), r.Err)
	}

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start = time.Now()
	r = p.launch(ctx, silent.Addr().String())
	if !errors.Is(r.Err, context.DeadlineExceeded) || time.Since(start) > time.Minute {
		t.Errorf("silent, after %v: %v", time.Since(start), r.Err)
	}
	if r = p.launch(ctx, s.addr); !errors.Is(r.Err, context.DeadlineExceeded) {
		t.Errorf("too late: %v", r.Err)
	}
}

// A server that says more than anybody wants, and things for terminals.
func TestHostileServer(t *testing.T) {
	s := serve(t, &server{run: func(_ string, ch ssh.Channel) uint32 {
		_, _ = ch.Stderr().Write([]byte("\x1b]0;evil\x07" + strings.Repeat("x", 1<<20)))
		return 1
	}}, false)
	r := planFor(t, "secret", s).launch(t.Context(), s.addr)
	if r.Err == nil || len(r.Err.Error()) > 2*maxSaid || strings.ContainsAny(r.Err.Error(), "\x1b\x07") {
		t.Errorf("%d bytes: %.100q", len(fmt.Sprint(r.Err)), r.Err)
	}
	lying := serve(t, &server{run: func(_ string, ch ssh.Channel) uint32 {
		_, _ = io.Copy(io.Discard, ch)
		_, _ = ch.Write([]byte("minimega-pid 1; rm -rf /\nminimega-pid -1\nminimega-pid 99999999999\n"))
		return 0
	}}, false)
	r = planFor(t, "secret", lying).launch(t.Context(), lying.addr)
	if r.Err == nil || !strings.Contains(r.Err.Error(), "its process is not known") {
		t.Errorf("%+v", r)
	}
}

// Keys: of hosts that are new, known or changed, and our own.
func TestKeyring(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", filepath.Join(home, "no agent"))
	record := filepath.Join(home, "accepted")
	if _, err := newKeyring(record, false, ""); !errors.Is(err, errs.Permission) || !strings.Contains(err.Error(), "no agent") {
		t.Errorf("no keys: %v", err)
	}
	mine, private := newSigner(t)
	write(t, home+"/.ssh/id_ed25519", private)
	write(t, home+"/.ssh/id_rsa", []byte("rubbish"))
	k, err := newKeyring(record, false, "")
	if err != nil || len(k.signers) != 1 || !bytes.Equal(k.signers[0].PublicKey().Marshal(), mine.PublicKey().Marshal()) {
		t.Fatalf("%+v, %v", k, err)
	}
	theirs, _ := newSigner(t)
	addr, remote := "n1:22", &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 22}
	if err := k.check(addr, remote, theirs.PublicKey()); !errors.Is(err, errs.Permission) || !strings.Contains(err.Error(), "ssh-keyscan n1") {
		t.Errorf("new: %v", err)
	}
	if k.algorithms(addr) != nil {
		t.Error("algorithms of a host that is new")
	}
	k.acceptNew = true
	if err := k.check(addr, remote, theirs.PublicKey()); err != nil {
		t.Error(err)
	}
	k, err = newKeyring(record, true, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := k.algorithms(addr); len(got) != 1 || got[0] != ssh.KeyAlgoED25519 {
		t.Errorf("algorithms: %v", got)
	}
	if err := k.check(addr, remote, theirs.PublicKey()); err != nil {
		t.Errorf("known: %v", err)
	}
	if err := k.check(addr, remote, mine.PublicKey()); !errors.Is(err, errs.Permission) || !strings.Contains(err.Error(), "remove line 1 of "+record) {
		t.Errorf("changed: %v", err)
	}
	if err := k.check("n1:2222", remote, mine.PublicKey()); err != nil {
		t.Errorf("another port: %v", err)
	}
	if text, _ := os.ReadFile(record); strings.Count(string(text), "\n") != 2 {
		t.Errorf("recorded: %s", text)
	}
	write(t, record, []byte("n1 not-a-key\n"))
	if _, err := newKeyring(record, true, ""); !errors.Is(err, errs.Invalid) || !strings.Contains(err.Error(), record) {
		t.Errorf("a file of rubbish: %v", err)
	}
}

func TestLaunchRefuses(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", "")
	d := deployer()
	for _, r := range []Request{{Hosts: "n[1-"}, {Hosts: ""}, {Hosts: "n1", User: "a\nb"}, {Hosts: "n1", User: "me", Password: "x"}} {
		if got, err := d.Launch(t.Context(), r, nil); err == nil {
			t.Errorf("%+v: %+v", r, got) // the last one: /etc/key is not there
		}
	}
	d.opts.Binary = "/dev/null"
	if _, err := d.Launch(t.Context(), Request{Hosts: "n1", Password: "x"}, nil); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("%v", err)
	}
}
