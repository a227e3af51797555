package android

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"minimega/internal/errs"
)

// console speaks to the console of one emulator. Each command has a connection
// of its own: nothing is held open between, and no answer can be late.
type console struct {
	port int
	home string // holds the token
}

const (
	tokenName   = ".emulator_console_auth_token"
	commandTime = 10 * time.Second
	maxAnswer   = 64 << 10 // bytes
)

// refusal is a KO of the emulator.
type refusal struct{ words string }

func (r *refusal) Error() string { return "the emulator says: " + r.words }

// run gives one command and returns the lines of its answer.
func (c *console) run(ctx context.Context, command string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", itoa(c.port)))
	if err != nil {
		return nil, errs.Wrap(errs.Unreachable, err)
	}
	defer conn.Close()
	// A deadline in the past ends whatever waits on the connection.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	lines, err := c.talk(conn, command)
	var no *refusal
	if err == nil || errors.As(err, &no) {
		return lines, err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, errs.New(errs.Unreachable, "console command %s: %w", command, err)
}

// talk waits for the greeting, proves who it is if asked to, and gives the
// command.
func (c *console) talk(conn io.ReadWriter, command string) ([]string, error) {
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	greeting, err := readAnswer(r)
	if err != nil {
		return nil, fmt.Errorf("greeting: %w", err)
	}
	if asksToken(greeting) {
		token, err := readToken(filepath.Join(c.home, tokenName))
		if err != nil {
			return nil, err
		}
		if _, err := ask(conn, r, "auth "+token); err != nil {
			return nil, fmt.Errorf("authentication: %w", err)
		}
	}
	return ask(conn, r, command)
}

func ask(w io.Writer, r *bufio.Reader, command string) ([]string, error) {
	if _, err := io.WriteString(w, command+"\r\n"); err != nil {
		return nil, err
	}
	return readAnswer(r)
}

// readAnswer reads lines up to the one that says OK. One that says KO is a
// *refusal.
func readAnswer(r *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		switch word, words, _ := strings.Cut(line, ":"); word {
		case "OK":
			return lines, nil
		case "KO":
			return nil, &refusal{strings.TrimSpace(strings.Map(plain, words))}
		}
		lines = append(lines, strings.Map(plain, line))
	}
}

// plain keeps control characters out of errors.
func plain(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\ufffd' {
		return ' '
	}
	return r
}

func asksToken(greeting []string) bool {
	for _, line := range greeting {
		if strings.Contains(line, "Authentication required") {
			return true
		}
	}
	return false
}

// readToken reads the secret that the emulator wrote for its own user.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", errs.WithRemedy(errs.New(errs.Permission, "the emulator asks for a token: %w", err),
			"start minimega with the HOME of the emulator's user")
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<10))
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return "", errs.New(errs.Invalid, "%s holds no token", path)
	}
	return token, nil
}

// avd gives `avd start` or `avd stop`. That the device is so already is no
// failure.
func (c *console) avd(ctx context.Context, verb string) error {
	_, err := c.run(ctx, "avd "+verb)
	var no *refusal
	if errors.As(err, &no) && strings.Contains(no.words, "already") {
		return nil
	}
	return err
}

// running asks whether the device runs.
func (c *console) running(ctx context.Context) (bool, error) {
	lines, err := c.run(ctx, "avd status")
	if err != nil {
		return false, err
	}
	switch text := strings.Join(lines, " "); {
	case strings.HasSuffix(text, "running"):
		return true, nil
	case strings.HasSuffix(text, "stopped"):
		return false, nil
	default:
		return false, errs.New(errs.Unreachable, "the emulator's status is %q", text)
	}
}

// name asks for the name of the virtual device.
func (c *console) name(ctx context.Context) (string, error) {
	lines, err := c.run(ctx, "avd name")
	return strings.Join(lines, " "), err
}
