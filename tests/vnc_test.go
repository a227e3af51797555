package tests

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/vishvananda/netns"

	"minimega/pkg/vnc"
)

// patience is how long a guest may take for anything on a busy machine.
const patience = 4 * time.Minute

// cmdVNC is a VNC client at the vnc_port of a VM, and what compares screens:
//
//	vnc ready VM         wait for `login:` at its serial port 0
//	vnc type VM TEXT     type as a person does; \n is Return
//	vnc cut VM TEXT      tell that the viewer's clipboard holds a text
//	vnc copied VM TEXT   wait until the guest offers a text to the viewer's clipboard
//	vnc settle VM FILE   wait until the screen stands still, and store it as PNG
//	vnc shows VM FILE    wait until the screen is that
//	vnc same FILE FILE   compare
//
// A blinking cursor makes no difference, nor what the firmware says first: it
// holds the machine's UUID.
func cmdVNC(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	switch args[0] {
	case "ready":
		err = loginPrompt(ctx, filepath.Join(ts.Getenv("BASE"), ask(ts, args[1], "id"), "serial0"))
	case "type":
		err = withViewer(ctx, ts, args[1], func(c *vnc.Client) error {
			return typeSlowly(ctx, c, strings.ReplaceAll(args[2], `\n`, "\n"))
		})
	case "cut":
		err = withViewer(ctx, ts, args[1], func(c *vnc.Client) error {
			err := c.Cut(vnc.CutText{Text: args[2]})
			if err == nil {
				_, err = c.Capture(ctx) // it has been read
			}
			return err
		})
	case "copied":
		err = copied(ctx, ts, args[1], args[2])
	case "settle":
		err = withViewer(ctx, ts, args[1], func(c *vnc.Client) error { return settle(ctx, c, ts.MkAbs(args[2])) })
	case "shows":
		err = withViewer(ctx, ts, args[1], func(c *vnc.Client) error { return shows(ctx, c, ts.MkAbs(args[2])) })
	case "same":
		var a, b image.Image
		if a, err = readPNG(ts.MkAbs(args[1])); err == nil {
			b, err = readPNG(ts.MkAbs(args[2]))
		}
		if err == nil && different(a, b) > cursor {
			err = fmt.Errorf("%d pixels differ", different(a, b))
		}
	default:
		ts.Fatalf("vnc %s?", args[0])
	}
	if (err != nil) != neg {
		ts.Fatalf("vnc %q: %v", args, err)
	}
}

// ask returns a column of vm info.
func ask(ts *testscript.TestScript, vm, column string) string {
	out, errOut, err := client(ts, []string{".headers", "false", ".annotate", "false", ".columns", column, ".filter", "name=" + vm, "vm", "info"})
	if err != nil {
		ts.Fatalf("vm info: %v: %s", err, errOut)
	}
	return strings.TrimSpace(out)
}

// loginPrompt presses Return until a login prompt comes.
func loginPrompt(ctx context.Context, socket string) error {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	seen, buf := "", make([]byte, 4096)
	for {
		_ = c.SetReadDeadline(time.Now().Add(400 * time.Millisecond))
		n, _ := c.Read(buf)
		if seen += string(buf[:n]); strings.Contains(seen, "login:") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no login prompt: %q", seen)
		case <-tick.C:
			_, _ = c.Write([]byte("\r"))
		}
	}
}

// cmdSerial types at the serial port 0 of a VM and waits for a text that comes
// from it: serial VM LINES TEXT; \n is Return.
func cmdSerial(ts *testscript.TestScript, neg bool, args []string) {
	c, err := net.Dial("unix", filepath.Join(ts.Getenv("BASE"), ask(ts, args[0], "id"), "serial0"))
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte(strings.ReplaceAll(args[1], `\n`, "\r")))
	ts.Check(err)
	seen, buf := "", make([]byte, 4096)
	for !strings.Contains(seen, args[2]) {
		n, err := c.Read(buf)
		if seen += string(buf[:n]); err != nil {
			ts.Fatalf("%q does not come: %v: %q", args[2], err, seen)
		}
	}
}

// withViewer connects to a VM's screen in the script's network namespace.
func withViewer(ctx context.Context, ts *testscript.TestScript, vm string, do func(*vnc.Client) error) error {
	conn, err := dialIn(ctx, theHost(ts).netns, "127.0.0.1:"+ask(ts, vm, "vnc_port"))
	if err != nil {
		return err
	}
	c, err := vnc.NewClient(ctx, conn, vnc.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	return do(c)
}

// encClipboard is the pseudo-encoding of viewers with an extended clipboard, and
// the rest its messages: a bit for the kind and one for text. A cut text with a
// negative length holds one (the RFB protocol as the community describes it).
const (
	encClipboard     vnc.Encoding = -0x3f5e1a32 // 0xc0a1e5ce
	clipboardRequest              = 1<<25 | 1
	clipboardNotify               = 1<<27 | 1
	clipboardProvide              = 1<<28 | 1
)

// extended is a cut text of a side, 3 for servers and 6 for clients, with flags.
func extended(side byte, length int32, flags uint32) []byte {
	b := binary.BigEndian.AppendUint32([]byte{side, 0, 0, 0}, uint32(-length))
	return binary.BigEndian.AppendUint32(b, flags)
}

// copied asks for the guest's clipboard whenever that is said to have changed.
func copied(ctx context.Context, ts *testscript.TestScript, vm, want string) error {
	conn, err := dialIn(ctx, theHost(ts).netns, "127.0.0.1:"+ask(ts, vm, "vnc_port"))
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c, err := vnc.NewClient(ctx, conn, vnc.Options{})
	if err != nil {
		return err
	}
	defer c.Close()
	var said bytes.Buffer
	if err := errors.Join(c.SetEncodings([]vnc.Encoding{vnc.EncRaw, encClipboard}), c.Tap(&said)); err != nil {
		return err
	}
	for {
		if _, err := c.Next(); err != nil {
			return fmt.Errorf("%q does not come: %w", want, err)
		}
		head, text := said.Bytes(), ""
		if said.Reset(); len(head) < 12 || head[0] != 3 {
			continue
		}
		switch flags := binary.BigEndian.Uint32(head[8:]); {
		case bytes.Equal(head[:12], extended(3, 4, clipboardNotify)):
			_, err = conn.Write(extended(6, 4, clipboardRequest))
		case flags == clipboardProvide:
			text, err = inflate(head[12:])
		}
		if err != nil || text == want {
			return err
		}
	}
}

// inflate reads a text after its length, and without the zero at its end.
func inflate(b []byte) (string, error) {
	z, err := zlib.NewReader(bytes.NewReader(b))
	if err != nil {
		return "", err
	}
	defer z.Close()
	text, err := io.ReadAll(io.LimitReader(z, 1<<16))
	if len(text) < 4 {
		return "", errors.Join(err, errors.New("a clipboard without a length"))
	}
	return strings.TrimRight(string(text[4:]), "\x00"), nil // QEMU does not end the stream
}

// dialIn connects from within a network namespace.
func dialIn(ctx context.Context, name, addr string) (net.Conn, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return nil, err
	}
	defer home.Close()
	there, err := netns.GetFromName(name)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		return nil, err
	}
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(err) // this thread must not go on elsewhere
		}
	}()
	return (&net.Dialer{}).DialContext(ctx, "tcp4", addr)
}

func typeSlowly(ctx context.Context, c *vnc.Client, text string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, k := range vnc.TypeKeys(text) {
		if err := c.Key(k); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	_, err := c.Capture(ctx) // all before it has been read
	return err
}

// settle waits until nothing but a cursor changes for two seconds.
func settle(ctx context.Context, c *vnc.Client, path string) error {
	var last *image.RGBA
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for since := time.Now(); ; {
		m, err := c.Capture(ctx)
		if err != nil {
			return err
		}
		if last == nil || different(last, m) > cursor {
			last, since = copyOf(m), time.Now()
		} else if time.Since(since) > 2*time.Second {
			return writePNG(path, last)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func shows(ctx context.Context, c *vnc.Client, path string) error {
	want, err := readPNG(path)
	if err != nil {
		return err
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := c.Capture(ctx)
		if err != nil {
			return err
		}
		d := different(want, m)
		if d <= cursor {
			return nil
		}
		select {
		case <-ctx.Done():
			_ = writePNG(path+".seen", copyOf(m))
			return fmt.Errorf("%d pixels differ from %s", d, path)
		case <-tick.C:
		}
	}
}

// cursor is how many pixels of a text screen blink: one character, as it was
// and as it is.
const cursor = 2 * 9 * 16

// firmware is the height of the first two lines of a text screen.
const firmware = 2 * 16

// different counts the pixels that differ below the firmware's lines.
func different(a, b image.Image) (n int) {
	if a.Bounds() != b.Bounds() {
		return 1 << 30
	}
	r := a.Bounds()
	for y := r.Min.Y + firmware; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if color.RGBAModel.Convert(a.At(x, y)) != color.RGBAModel.Convert(b.At(x, y)) {
				n++
			}
		}
	}
	return n
}

func copyOf(m *image.RGBA) *image.RGBA {
	c := image.NewRGBA(m.Rect)
	copy(c.Pix, m.Pix)
	return c
}

func readPNG(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return png.Decode(f)
}

func writePNG(path string, m image.Image) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := png.Encode(f, m); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
