package rfbplay

import (
	"bufio"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"minimega/pkg/vnc"
)

// serve starts a server and returns the address that it tells.
func serve(t *testing.T, c Config) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- Run(ctx, c, w, io.Discard); _ = w.Close() }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(line)[0]
}

func serveDir(t *testing.T, dir string) string {
	c := Default()
	c.Port, c.Input = 0, dir
	return serve(t, c)
}

func get(t *testing.T, url string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func TestHTTPListing(t *testing.T) {
	dir := t.TempDir()
	name := `a"<b>&?#%.fb`
	secret := filepath.Join(t.TempDir(), "secret")
	for _, path := range []string{filepath.Join(dir, name), secret} {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "way-out")); err != nil {
		t.Fatal(err)
	}
	url := serveDir(t, dir)
	body, err := io.ReadAll(get(t, url).Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a&#34;&lt;b&gt;&amp;?#%.fb", `href="./a%22%3Cb%3E&amp;%3F%23%25.fb"`, `href="./sub/"`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	for path, want := range map[string]int{"none": 404, "way-out": 404, "../" + filepath.Base(secret): 404, "sub": 200,
		"a%22%3Cb%3E&%3F%23%25.fb": 415, "a%22%3Cb%3E&%3F%23%25.fb?offset=soon": 400, "a%22%3Cb%3E&%3F%23%25.fb?offset=-1s": 400} {
		if got := get(t, url+path).StatusCode; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
}

func TestHTTPPlays(t *testing.T) {
	path := sample(t)
	url := serveDir(t, filepath.Dir(path)) + filepath.Base(path)
	for _, from := range []time.Duration{0, 1200 * time.Millisecond} {
		start := time.Now()
		resp := get(t, url+"?offset="+from.String())
		_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		r := multipart.NewReader(resp.Body, params["boundary"])
		n := 0
		var first, last image.Image
		for {
			part, err := r.NextPart()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := jpeg.Decode(part)
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 1 {
				first = m
			}
			last = m
		}
		took, want := time.Since(start), 1500*time.Millisecond-from
		if took < want-50*time.Millisecond || n > int(want/(100*time.Millisecond))+2 || n < 2 {
			t.Errorf("from %v: %d pictures in %v", from, n, took)
		}
		if first.Bounds() != sampleAt(from).Rect || last.Bounds().Dx() != 60 {
			t.Errorf("from %v: sizes %v and %v", from, first.Bounds(), last.Bounds())
		}
		if r, _, b, _ := last.At(30, 5).RGBA(); r>>8 < 240 || b>>8 > 20 {
			t.Errorf("from %v: the last picture is not red above", from)
		}
	}
}

func viewer(t *testing.T, addr string) *vnc.Client {
	t.Helper()
	c, err := vnc.Dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}, vnc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// until looks at the screen until it is as wanted.
func until(t *testing.T, c *vnc.Client, want image.Image) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		m, err := c.Capture(ctx)
		if err != nil {
			t.Fatal("the wanted picture does not come: ", err)
		}
		if equal(m, want) {
			return
		}
	}
}

// atStart makes a viewer that has seen the first second of a show, which is red.
func atStart(t *testing.T, addr string) *vnc.Client {
	t.Helper()
	for range 100 { // a busy machine may be late
		v := viewer(t, addr)
		m, err := v.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if equal(m, sampleOf(red)) {
			return v
		}
	}
	t.Fatal("a show does not begin red")
	return nil
}

func TestVNCPlaysAndSeeks(t *testing.T) {
	m := newMaker(t, 10, 10)
	m.rect(0, image.Rect(0, 0, 10, 10), plain(red))
	m.rect(time.Hour, image.Rect(0, 0, 10, 10), plain(blue))
	m.rect(time.Hour+19*time.Second, image.Rect(0, 0, 10, 10), plain(red))
	m.rect(time.Hour+40*time.Second, image.Rect(0, 0, 10, 10), plain(blue))
	c := Default()
	c.Input, c.VNC, c.Offset = m.done(2*time.Hour), freePort(t), time.Hour-time.Second
	addr := serve(t, c)
	other := atStart(t, addr) // each has a show of its own
	v := atStart(t, addr)
	until(t, v, sampleOf(blue)) // by itself, after a second
	press := func(k uint32) {
		t.Helper()
		if err := v.Key(vnc.KeyEvent{Down: true, Keysym: k}); err != nil {
			t.Fatal(err)
		}
	}
	press(keySpace)
	press(keyRight)
	press(keyRight)
	until(t, v, sampleOf(red))
	press(keyLeft)
	until(t, v, sampleOf(blue))
	press(keyHome)
	until(t, v, sampleOf(red))
	until(t, other, sampleOf(blue))
}

// freePort is a port that nobody listened on a moment ago.
func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestServersSayWhatIsWrong(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	for _, change := range []func(*Config){func(c *Config) { c.Port = port; c.Input = t.TempDir() }, func(c *Config) { c.VNC = port }} {
		if _, _, err := run(t, sample(t), "", change); err == nil || !strings.Contains(err.Error(), fmt.Sprint(port)) {
			t.Errorf("a port that is taken: %v", err)
		}
	}
}
