package tests

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
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
