package miniclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// speak serves the socket of a base directory. answer gets each command and
// returns the lines to send; "hang up" instead closes, "wait" says nothing.
func speak(t *testing.T, answer func(command string) []string) (base string) {
	t.Helper()
	base = t.TempDir()
	l, err := net.Listen("unix", SocketPath(base))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { converse(c, answer) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return base
}

func converse(c net.Conn, answer func(string) []string) {
	defer c.Close()
	in := json.NewDecoder(c)
	for {
		var q struct{ Command, Suggest, PlumbPipe string }
		if in.Decode(&q) != nil {
			return
		}
		for _, line := range answer(q.Command + q.Suggest + q.PlumbPipe) {
			switch line {
			case "hang up":
				return
			case "echo":
				io.Copy(c, io.MultiReader(in.Buffered(), c))
				return
			default:
				io.WriteString(c, line+"\n")
			}
		}
	}
}

func connect(t *testing.T, base string) (*Conn, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c, err := Dial(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); cancel() })
	return c, ctx
}

func text(s string, more bool) string {
	return fmt.Sprintf(`{"Resp":[{"Host":"h","Response":%q,"Header":null,"Tabular":null,"Error":"","Data":null}],"Rendered":%q,"More":%v,"Status":false}`, s, s, more)
}

// scripted answers what a command of its own name says.
func scripted(command string) []string {
	switch command {
	case "three":
		return []string{text("a", true), `{"Resp":null,"Rendered":"50%","More":false,"Status":true}`, text("b", true), text("c", false)}
	case "fail":
		return []string{
			`{"Resp":[{"Host":"h","Error":"bad"},{"Host":"i","Response":"ok"}],"Rendered":"","More":true,"Status":false}`,
			`{"Resp":[{"Host":"j","Error":"worse"}],"Rendered":"","More":false,"Status":false}`,
		}
	case "quit":
		return []string{"hang up"}
	case "half":
		return []string{text("a", true), "hang up"}
	case "junk":
		return []string{"{]"}
	case "wait":
		return nil
	case "vm st", " ":
		return []string{`{"Resp":null,"Rendered":"","More":false,"Status":false,"Suggest":["vm start","vm stop"]}`}
	case "pipe":
		return []string{"echo"}
	case "nopipe":
		return []string{`{"Resp":[{"Host":"h","Error":"no such pipe"}],"Rendered":"","More":false,"Status":false}`}
	}
	return []string{text(command, false)}
}

func rendered(c *Conn, ctx context.Context, command string) (string, error) {
	var all []string
	for r, err := range c.Run(ctx, command) {
		if err != nil {
			return strings.Join(all, " "), err
		}
		all = append(all, r.Rendered)
	}
	return strings.Join(all, " "), nil
}

func TestRun(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	var status []string
	c.OnStatus(func(s string) { status = append(status, s) })
	for command, want := range map[string]string{"three": "a b c", "": "", "<x> \"y\" \u2028 ü": "<x> \"y\" \u2028 ü"} {
		if got, err := rendered(c, ctx, command); got != want || err != nil {
			t.Errorf("%q: got %q, %v", command, got, err)
		}
	}
	if len(status) != 1 || status[0] != "50%" {
		t.Errorf("status %q", status)
	}
}

// Whoever stops reading an answer does not get its rest with the next one.
func TestRunBreak(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	for range c.Run(ctx, "three") {
		break
	}
	if got, err := rendered(c, ctx, "next"); got != "next" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDo(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	all, err := c.Do(ctx, "fail")
	var failed Responses
	if len(all) != 2 || !errors.As(err, &failed) || err.Error() != "Error (h): bad\nError (j): worse" {
		t.Errorf("%d responses, %v", len(all), err)
	}
	if _, err := c.Do(ctx, "three"); err != nil {
		t.Error(err)
	}
}

func TestRunRaw(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	want := 0
	for _, l := range scripted("three") {
		want += len(l) + 1
	}
	if n, err := c.RunRaw(ctx, "three"); n != want || err != nil {
		t.Errorf("%d bytes, %v, want %d", n, err, want)
	}
	if n, err := c.RunRaw(ctx, "quit"); n != 0 || !errors.Is(err, ErrNoAnswer) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func TestNoAnswer(t *testing.T) {
	base := speak(t, scripted)
	for command, want := range map[string]error{"quit": ErrNoAnswer, "half": ErrNoAnswer, "junk": nil} {
		c, ctx := connect(t, base)
		if _, err := rendered(c, ctx, command); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", command, err)
		}
		if _, err := rendered(c, ctx, "next"); !errors.Is(err, ErrBroken) {
			t.Errorf("after %s: %v", command, err)
		}
	}
}

func TestCancel(t *testing.T) {
	c, _ := connect(t, speak(t, scripted))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if _, err := rendered(c, ctx, "wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := rendered(c, context.Background(), "next"); !errors.Is(err, ErrBroken) {
		t.Errorf("got %v", err)
	}
}

// Commands of several goroutines wait for each other.
func TestConcurrent(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Sprint("echo ", i)
			if got, err := rendered(c, ctx, want); got != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
	wg.Wait()
}

func TestSuggest(t *testing.T) {
	c, ctx := connect(t, speak(t, scripted))
	for _, beginning := range []string{"vm st", ""} {
		if got, err := c.Suggest(ctx, beginning); err != nil || strings.Join(got, "|") != "vm start|vm stop" {
			t.Errorf("%q: %q, %v", beginning, got, err)
		}
	}
}

func TestPipe(t *testing.T) {
	base := speak(t, scripted)
	c, ctx := connect(t, base)
	p, err := c.Pipe(ctx, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"one\n", "", "<&\u2028ü\x00\n"} {
		if err := p.Send(m); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Recv(); got != m || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, m)
		}
	}
	if _, err := rendered(c, ctx, "x"); !errors.Is(err, ErrBroken) {
		t.Errorf("a command on a pipe: %v", err)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	c, ctx = connect(t, base)
	if p, err = c.Pipe(ctx, "nopipe"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Recv(); err == nil || err.Error() != "no such pipe" {
		t.Errorf("got %v", err)
	}
}

// A table of thousands of VMs arrives whole, over many reads.
func TestBigAnswer(t *testing.T) {
	big := strings.TrimSuffix(string(table(5000)), "\n")
	c, ctx := connect(t, speak(t, func(string) []string { return []string{big} }))
	for range 2 {
		all, err := c.Do(ctx, "vm info")
		if err != nil || len(all) != 1 || len(all[0].Resp[0].Tabular) != 5000 || all[0].Resp[0].Tabular[4999][39] != "value-39" {
			t.Fatalf("%d, %v", len(all), err)
		}
	}
}

func TestDialErrors(t *testing.T) {
	base := t.TempDir()
	start := time.Now()
	_, err := Dial(context.Background(), base)
	if !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "no minimega at "+base+": ") {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("waited %v for what does not pass", d)
	}
}

// A full backlog passes; until it does, Dial tries again.
func TestDialRetries(t *testing.T) {
	base := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: SocketPath(base)}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, _ := connect(t, base)
	defer first.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, base); err == nil {
		t.Fatal("the backlog is not full")
	}
	dialled := make(chan error, 1)
	go func() {
		c, err := Dial(context.Background(), base)
		if err == nil {
			err = c.Close()
		}
		dialled <- err
	}()
	pause := time.NewTimer(30 * time.Millisecond)
	defer pause.Stop()
	<-pause.C
	accepted, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(accepted)
	if err := <-dialled; err != nil {
		t.Error(err)
	}
}
