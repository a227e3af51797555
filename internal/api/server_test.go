package api

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The protocol to the byte: requests, and what came back for them.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, in := range files {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".in"), func(t *testing.T) {
			_, path := serve(t, newFakes(), nil)
			requests, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			c := dial(t, path)
			c.send(string(requests))
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(in, ".in") + ".out"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

const versionAnswer = `{"Resp":[{"Host":"box","Response":"minimega 4.0.0 unknown unknown","Header":null,"Tabular":null,"Error":"","Data":null}],` +
	`"Rendered":"box: minimega 4.0.0 unknown unknown","More":false,"Status":false}`

// The generated Python bindings send no newline, and read a line.
func TestPythonLike(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	c := dial(t, path)
	for range 3 {
		c.send(`{"Command":"version"}`)
		c.want(versionAnswer)
	}
}

func TestByteByByte(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	c := dial(t, path)
	for _, b := range []byte(` {"command":"version"} `) {
		c.send(string(b))
	}
	c.want(versionAnswer)
}

// A shell script pipes a request and waits.
func TestSocat(t *testing.T) {
	socat, err := exec.LookPath("socat")
	if err != nil {
		t.Skip("socat is not installed")
	}
	f := newFakes()
	_, path := serve(t, f, nil)
	cmd := exec.Command(socat, "-t60", "-", "UNIX-CONNECT:"+path)
	cmd.Stdin = strings.NewReader(`{"Command":"patient"}`)
	go func() {
		<-f.started
		// Longer than it takes to notice a client that has gone.
		time.AfterFunc(10*watchAfter, func() { close(f.release) })
	}()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"Rendered":"box: done"`) {
		t.Errorf("%q, %v", out, err)
	}
	if how := receive(t, f.ended); how != "released" {
		t.Errorf("the command was ended: %s", how)
	}
}

func TestQuit(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	c := dial(t, path)
	c.send(`{"Command":"version"}{"Command":"quit"}{"Command":"version"}`)
	c.want(versionAnswer)
	c.wantEOF()
}

func TestVanishedClient(t *testing.T) {
	for command, want := range map[string]string{
		"patient": ErrClientGone.Error(), "slow": "released",
		"namespace x patient": ErrClientGone.Error(), "namespace x slow": "released",
	} {
		t.Run(command, func(t *testing.T) {
			f := newFakes()
			_, path := serve(t, f, nil)
			c := dial(t, path)
			c.send(`{"Command":"` + command + `"}`)
			receive(t, f.started)
			c.Close()
			if want == "released" {
				pause(t, 5*watchAfter)
				close(f.release)
			}
			if how := receive(t, f.ended); how != want {
				t.Errorf("ended: %s, want %s", how, want)
			}
			// As phenix does: the next connection works.
			d := dial(t, path)
			d.send(`{"Command":"version"}`)
			d.want(versionAnswer)
		})
	}
}

// A client that half-closes is still there, until it closes wholly.
func TestHalfClosedThenVanished(t *testing.T) {
	f := newFakes()
	_, path := serve(t, f, nil)
	c := dial(t, path)
	c.send(`{"Command":"patient"}`)
	receive(t, f.started)
	c.CloseWrite()
	pause(t, 5*watchAfter)
	select {
	case how := <-f.ended:
		t.Fatalf("ended: %s", how)
	default:
	}
	c.Close()
	if how := receive(t, f.ended); how != ErrClientGone.Error() {
		t.Errorf("ended: %s", how)
	}
}

func TestWatchOverPipelined(t *testing.T) {
	f := newFakes()
	_, path := serve(t, f, nil)
	c := dial(t, path)
	c.send(`{"Command":"patient"}{"Command":"version"}`)
	receive(t, f.started)
	pause(t, 3*watchAfter)
	c.send(`{"Command":"version"}`)
	pause(t, 3*watchAfter)
	close(f.release)
	if l := c.line(); !strings.Contains(l, "box: done") {
		t.Error(l)
	}
	c.want(versionAnswer)
	c.want(versionAnswer)
}

// A request may be 4 MiB, and is not kept in memory past that.
func TestLimits(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	c := dial(t, path)
	long := strings.Repeat("y", maxRequest/2)
	c.send(`{"Command":"` + long + `"}`)
	if l := c.line(); !strings.Contains(l, `"Error":"`) {
		t.Errorf("%.200s", l)
	}
	for _, garbage := range []string{
		`{"Command":"` + strings.Repeat("x", 2*maxRequest), // too large
		strings.Repeat("\x00\xff{[", 1<<18),                // 1 MiB of noise
		strings.Repeat("[", 1<<20),
		`{"Command":5}`, `null x`, `[]`, `"version" `,
	} {
		g := dial(t, path)
		start := time.Now()
		io.WriteString(g, garbage) // fails once the server has closed
		if rest, _ := io.ReadAll(g); len(rest) > 0 && !strings.Contains(string(rest), "must specify") {
			t.Errorf("%.20q answered %.200q", garbage, rest)
		}
		if d := time.Since(start); d > 30*time.Second {
			t.Errorf("%.20q: took %v", garbage, d)
		}
	}
	c.send(`{"Command":"version"}`)
	c.want(versionAnswer)
}

// Clients that do not read block neither the server nor each other.
func TestSlowReaders(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	const size = 512 << 10 // more than a socket holds
	slow := make([]*client, 200)
	for i := range slow {
		slow[i] = dial(t, path)
		slow[i].send(fmt.Sprintf(`{"Command":"big %d"}{"Command":"echo %d"}`, size, i))
	}
	c := dial(t, path)
	c.send(`{"Command":"version"}`)
	c.want(versionAnswer)
	var wg sync.WaitGroup
	for i, c := range slow {
		c.SetDeadline(time.Now().Add(5 * time.Minute))
		wg.Go(func() {
			if l := c.line(); len(l) < 2*size {
				t.Errorf("%d bytes", len(l))
			}
			if l := c.line(); !strings.Contains(l, fmt.Sprintf(`"box: %d"`, i)) {
				t.Errorf("%.200s", l)
			}
		})
	}
	wg.Wait()
}

// Close does not wait for clients that never read.
func TestCloseWithStuckClient(t *testing.T) {
	s, path := serve(t, newFakes(), nil)
	c := dial(t, path)
	c.send(`{"Command":"big 9000000"}`)
	idle := dial(t, path)
	idle.send(`{"Command":"version"}`)
	idle.want(versionAnswer)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	idle.wantEOF()
}

// What runs when the server closes is cancelled, and still answered.
func TestCloseCancels(t *testing.T) {
	f := newFakes()
	s, path := serve(t, f, nil)
	c := dial(t, path)
	c.send(`{"Command":"slow"}{"Command":"version"}`)
	receive(t, f.started)
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if l := c.line(); !strings.Contains(l, errClosing.Error()) {
		t.Error(l)
	}
	c.wantEOF()
}

// A command that does not end is named, and does not hold Close up.
func TestCloseBounded(t *testing.T) {
	f := newFakes()
	f.ended = make(chan string) // nobody receives
	s, path := serve(t, f, nil)
	c := dial(t, path)
	c.send(`{"Command":"slow"}`)
	receive(t, f.started)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), `["slow"]`) {
		t.Errorf("got %v", err)
	}
	receive(t, f.ended)
}

func TestManyConnections(t *testing.T) {
	_, path := serve(t, newFakes(), nil)
	before := runtime.NumGoroutine()
	clients := make([]*client, 1000)
	for i := range clients {
		clients[i] = dial(t, path)
	}
	for range 2 {
		for _, c := range clients {
			c.send(`{"Command":"version"}`)
		}
		for _, c := range clients {
			c.want(versionAnswer)
		}
	}
	more := func() int { return runtime.NumGoroutine() - before }
	for end := time.Now().Add(time.Minute); more() > len(clients)+10 && time.Now().Before(end); { // those of commands end
		pause(t, 5*time.Millisecond)
	}
	if n := more(); n > len(clients)+10 {
		t.Errorf("%d goroutines for %d clients", n, len(clients))
	}
}

func TestPipe(t *testing.T) {
	p := &pipe{ch: make(chan string, 8), done: make(chan struct{})}
	_, path := serve(t, newFakes(), p)
	c := dial(t, path)
	c.send(`{"PlumbPipe":"p","Command":"version"}`)
	c.want(`"minimega/p\n"`)
	c.send(`"" "one\n""<two>\n"`)
	c.want(`"one\n"`)
	c.want(`"\u003ctwo\u003e\n"`)
	c.CloseWrite()
	c.wantEOF()
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Error("the pipe was not closed")
	}
}

func TestPipeEnds(t *testing.T) {
	p := &pipe{ch: make(chan string, 8), done: make(chan struct{})}
	_, path := serve(t, newFakes(), p)
	c := dial(t, path)
	c.send(`{"PlumbPipe":"p"}`)
	c.want(`"minimega/p\n"`)
	p.Close()
	c.wantEOF()
}

func TestPipeRefused(t *testing.T) {
	for name, h := range map[string]PipeHandler{"none": nil, "bad": &pipe{}} {
		t.Run(name, func(t *testing.T) {
			_, path := serve(t, newFakes(), h)
			c := dial(t, path)
			c.send(`{"PlumbPipe":"` + name + `"}`)
			var answer struct {
				Resp []struct{ Host, Error string }
			}
			if err := json.Unmarshal([]byte(c.line()), &answer); err != nil || len(answer.Resp) != 1 || answer.Resp[0].Error == "" {
				t.Errorf("%+v, %v", answer, err)
			}
			c.wantEOF()
		})
	}
}

// The server outlives a lack of descriptors.
func TestOutOfDescriptors(t *testing.T) {
	f := newFakes()
	_, path := serve(t, f, nil)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	c := dial(t, path)
	c.send(`{"Command":"version"}`)
	c.want(versionAnswer)
	low := unix.Rlimit{Cur: 3, Max: old.Max}
	// A descriptor for the client, so that only the server lacks one.
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	const shortage = "cannot accept a client"
	for end := time.Now().Add(time.Minute); !strings.Contains(f.logged(), shortage) && time.Now().Before(end); {
		pause(t, 5*time.Millisecond)
	}
	c.send(`{"Command":"version"}`)
	c.want(versionAnswer)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(f.logged(), shortage) {
		t.Errorf("no shortage in the log: %s", f.logged())
	}
	if _, err := unix.Write(fd, []byte(`{"Command":"version"}`)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2*len(versionAnswer))
	if n, err := unix.Read(fd, buf); err != nil || string(buf[:n]) != versionAnswer+"\n" {
		t.Errorf("got %q, %v", buf[:max(n, 0)], err)
	}
}

// pause lets time pass, for what must not happen meanwhile.
func pause(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		`{"Command":"version"}`, `{"command":"a"}{"SUGGEST":"b"}`, `{"PlumbPipe":"x"}"y"`, `{`, `[1`, `nul`, `"`, "\x00",
		`{"Command":"\ud800"}`, strings.Repeat("[", 100), `{"Command":{"Command":1}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newRequests(bytes.NewReader(data))
		for n := 0; ; n++ {
			if n > len(data) {
				t.Fatal("more requests than bytes")
			}
			q, err := r.next()
			if err != nil {
				return
			}
			if len(q.Command)+len(q.Suggest) > 3*len(data) {
				t.Fatalf("%d bytes became %d", len(data), len(q.Command))
			}
		}
	})
}

func FuzzMessages(f *testing.F) {
	for _, s := range []string{`"a""b"`, `"\""`, `"\\"`, ` "x`, `{}`, `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newRequests(bytes.NewReader(data)).messages()
		var ours []string
		for {
			text, err := m.next()
			if err != nil {
				break
			}
			ours = append(ours, text)
		}
		dec := json.NewDecoder(bytes.NewReader(data))
		for i := range ours {
			var text string
			if err := dec.Decode(&text); err != nil || text != ours[i] {
				t.Fatalf("message %d of %q: got %q, want %q, %v", i, data, ours[i], text, err)
			}
		}
	})
}

func BenchmarkVersion(b *testing.B) {
	_, path := serve(b, newFakes(), nil)
	c := dial(b, path)
	c.SetDeadline(time.Time{})
	req := []byte(`{"Command":"version"}` + "\n")
	for b.Loop() {
		if _, err := c.Write(req); err != nil {
			b.Fatal(err)
		}
		if _, err := c.r.ReadSlice('\n'); err != nil {
			b.Fatal(err)
		}
	}
}
