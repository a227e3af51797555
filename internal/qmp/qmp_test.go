package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"minimega/internal/errs"
	"minimega/internal/host/hosttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func ctxFor(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// startQEMU runs a real QEMU without a guest and returns its socket.
func startQEMU(t *testing.T) string {
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	hosttest.Machine{Marks: []string{dir}}.Check(t)
	sock := filepath.Join(dir, "qmp")
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-m", "16", "-nographic", "-net", "none", "-S",
		"-qmp", "unix:"+sock+",server=on")
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
		if t.Failed() {
			t.Logf("QEMU said: %s", out)
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx := ctxFor(t, time.Minute); ; {
		if c, err := net.Dial("unix", sock); err == nil {
			_ = c.Close()
			return sock
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("QEMU does not open its socket")
		}
	}
}

func TestQEMU(t *testing.T) {
	ctx := ctxFor(t, time.Minute)
	c, err := Dial(ctx, startQEMU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	var status struct{ Status string }
	if err := c.Execute(ctx, "query-status", nil, &status); err != nil || status.Status != "prelaunch" {
		t.Errorf("status %q, %v", status.Status, err)
	}
	var schema []json.RawMessage // far longer than a default line buffer
	if err := c.Execute(ctx, "query-qmp-schema", nil, &schema); err != nil || len(schema) < 500 {
		t.Errorf("schema of %d, %v", len(schema), err)
	}
	err = c.Execute(ctx, "device_del", map[string]string{"id": "nosuch"}, nil)
	var refused *Error
	if !errors.As(err, &refused) || refused.Class != "DeviceNotFound" || !strings.Contains(err.Error(), "Device 'nosuch' not found") {
		t.Errorf("device_del: %v", err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if err := c.Execute(ctx, "query-version", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, cmd := range []string{"cont", "stop"} {
		if err := c.Execute(ctx, cmd, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"RESUME", "STOP"} {
		select {
		case e := <-c.Events():
			if e.Name != want || time.Since(e.Time) > time.Minute {
				t.Errorf("event %+v, want %s", e, want)
			}
		case <-ctx.Done():
			t.Fatal("no event")
		}
	}
	if err := c.Execute(ctx, "quit", nil, nil); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	err = c.Execute(ctx, "query-status", nil, nil)
	if !errors.Is(err, errs.Unreachable) || !strings.Contains(err.Error(), "connection closed") {
		t.Errorf("after quit: %v", err)
	}
}

func TestRaw(t *testing.T) {
	ctx := ctxFor(t, time.Minute)
	c, err := Dial(ctx, startQEMU(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, x := range []struct{ in, want string }{
		{`{"execute": "query-name"}`, `{"return": {}}`},
		{`{"execute":"query-name","id":{"a":[1]}}`, `{"return": {}, "id": {"a":[1]}}`},
		{`{"execute": "nosuch"}`, `{"error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}}`},
		{`{"execute": 5}`, `{"error": {"class": "GenericError", "desc": "QMP input member 'execute' must be a string"}}`},
		// Not JSON to QEMU, whose answer then carries no id.
		{`{"execute": "query-name", "arguments": {"a": "\ud800"}}`, `{"error": {"class": "GenericError", "desc": "JSON parse error, `},
		{`{`, `invalid JSON: unexpected end of JSON input`},
		{`[1]`, `invalid JSON: json: cannot unmarshal array`},
		{`null`, `invalid JSON: null is no request`},
	} {
		got, err := c.Raw(ctx, json.RawMessage(x.in))
		text := string(got)
		if err != nil {
			text = err.Error()
		}
		if !strings.HasPrefix(text, x.want) {
			t.Errorf("%s\n got %s\nwant %s", x.in, text, x.want)
		}
	}
}

// fake runs serve as the other side of a connection.
func fake(t *testing.T, serve func(conn net.Conn, r *bufio.Reader)) (*Client, error) {
	ours, theirs := net.Pipe()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer theirs.Close()
		serve(theirs, bufio.NewReader(theirs))
	}()
	c, err := New(ctxFor(t, time.Minute), ours)
	t.Cleanup(func() {
		if c != nil {
			_ = c.Close()
		}
		_ = ours.Close()
		<-finished
	})
	return c, err
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}` + "\r\n"

func handshake(conn net.Conn, r *bufio.Reader) {
	_, _ = io.WriteString(conn, greeting)
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(conn, `{"return": {}, "id": 1}`+"\r\n")
}

// A QEMU whose last client died in the middle of something has more to say than hello.
func TestGreetingLate(t *testing.T) {
	_, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(conn, `{"event": "JOB_STATUS_CHANGE"}`+"\n"+`{"return": {}, "id": 7}`+"\n")
		handshake(conn, r)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestHostileServer(t *testing.T) {
	for name, c := range map[string]struct{ sends, want string }{
		"no server":  {"SSH-2.0-x\n", "malformed message"},
		"no QMP":     {strings.Repeat(`{"event": "X"}`+"\n", maxStray+1), "not a QMP server"},
		"closed":     {"", "EOF"},
		"cut short":  {`{"QMP"`, "unexpected EOF"},
		"no message": {greeting + `{"a": 1}` + "\n", "message is no greeting, reply or event"},
	} {
		_, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
			_, _ = io.WriteString(conn, c.sends)
			if strings.HasPrefix(c.sends, greeting) {
				_, _ = r.ReadString('\n')
			}
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMessageTooLong(t *testing.T) {
	c, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
		handshake(conn, r)
		chunk := bytes.Repeat([]byte("x"), 1<<20)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Err(); !strings.Contains(err.Error(), "longer than") {
		t.Error(err)
	}
}

func TestContextEndsCall(t *testing.T) {
	c, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
		handshake(conn, r)
		_, _ = r.ReadString('\n') // no answer to the first
		_, _ = r.ReadString('\n') // an answer to both for the second
		_, _ = io.WriteString(conn, `{"return": "late", "id": 2}`+"\n"+`{"return": "good", "id": 3}`+"\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(ctxFor(t, 20*time.Millisecond), "a", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("first: %v", err)
	}
	var got string
	if err := c.Execute(ctxFor(t, time.Minute), "b", nil, &got); err != nil || got != "good" {
		t.Errorf("second: %q, %v", got, err)
	}
}

// TestStuckWrite has a server that stops reading: the call must end with its
// context, and the connection with it, since part of a message was sent.
func TestStuckWrite(t *testing.T) {
	release := make(chan struct{})
	c, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
		handshake(conn, r)
		_, _ = conn.Read(make([]byte, 4))
		<-release
	})
	defer close(release)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Execute(ctxFor(t, 50*time.Millisecond), strings.Repeat("a", 100000), nil, nil)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stuck: %v", err)
	}
	if err := c.Execute(ctxFor(t, time.Minute), "b", nil, nil); !errors.Is(err, errs.Unreachable) {
		t.Errorf("afterwards: %v", err)
	}
}

func TestEventsDoNotBlock(t *testing.T) {
	const n = eventQueue + 100
	c, err := fake(t, func(conn net.Conn, r *bufio.Reader) {
		handshake(conn, r)
		for i := range n {
			_, _ = fmt.Fprintf(conn, `{"event": "E%d", "data": {}, "timestamp": {"seconds": -1, "microseconds": -1}}`+"\n", i)
		}
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(conn, `{"return": {}, "id": 2}`+"\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(ctxFor(t, time.Minute), "x", nil, nil); err != nil {
		t.Fatal(err)
	}
	if c.Dropped() != 100 {
		t.Errorf("dropped %d", c.Dropped())
	}
	if e := <-c.Events(); e.Name != "E0" || !e.Time.IsZero() {
		t.Errorf("first event %+v", e)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		greeting, `{"return": {}, "id": 1}`, `{"error": {"class": "GenericError", "desc": "x"}}`, `{"return": null, "id": null}`,
		`{"event": "STOP", "data": {"a": 1}, "timestamp": {"seconds": 1, "microseconds": 2}}`, "\n\n{", `{"error": 1}`,
	} {
		f.Add([]byte(s + "\n"))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			if m.Event != "" {
				_ = m.event()
			}
			if m.Return == nil && m.Error == nil {
				continue
			}
			again, err := parse(m.verbatim(json.RawMessage("7")))
			if err != nil || string(again.ID) != "7" {
				t.Fatalf("%q does not survive: %v", m.verbatim(nil), err)
			}
		}
	})
}
