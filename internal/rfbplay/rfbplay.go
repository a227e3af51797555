// Package rfbplay shows recordings of screens, which `vnc record fb` makes:
// in a browser as MJPEG over HTTP, to a VNC viewer, and as files: PNG frames
// and GIF by itself, mp4, webm and others through ffmpeg. The format of the
// recordings is that of package vnc.
package rfbplay

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"minimega/internal/errs"
)

// Config says what to play and how.
type Config struct {
	Listen string        // address of the HTTP and VNC servers
	Port   int           // of the HTTP server
	VNC    int           // port of a VNC server that shows Input; 0: none
	Offset time.Duration // start here
	Rate   int           // frames a second
	FFmpeg string        // program
	Input  string        // a directory to serve, or a recording
	Output string        // file to make of Input, or ""

	every time.Duration // between words of progress; 0: as it fits
}

// Default is a configuration without input.
func Default() Config {
	return Config{Listen: "127.0.0.1", Port: 9004, Rate: 10, FFmpeg: "ffmpeg"}
}

// maxRate bounds Config.Rate: GIF knows nothing faster that viewers respect.
const maxRate = 50

// Run plays as c says until it is done or ctx ends. What it does goes to
// stderr, addresses and results to stdout.
func Run(ctx context.Context, c Config, stdout, stderr io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	switch {
	case c.Output != "":
		return c.transcode(ctx, stdout, stderr)
	case c.VNC != 0:
		return c.serveVNC(ctx, stdout, stderr)
	}
	return c.serveHTTP(ctx, stdout, stderr)
}

func (c *Config) check() error {
	switch {
	case c.Input == "":
		return errs.New(errs.Invalid, "give a directory to serve, or a recording and a file to make of it")
	case c.Output != "" && c.VNC != 0:
		return errs.New(errs.Invalid, "-vnc shows a recording and makes no file: leave out %s", c.Output)
	case c.Rate < 1 || c.Rate > maxRate:
		return errs.New(errs.Invalid, "-rate is %d: give 1 to %d frames a second", c.Rate, maxRate)
	case c.Offset < 0:
		return errs.New(errs.Invalid, "-offset is negative")
	case c.Port < 0 || c.Port > 65535 || c.VNC < 0 || c.VNC > 65535:
		return errs.New(errs.Invalid, "a port is a number up to 65535")
	}
	st, err := os.Stat(c.Input)
	if err != nil {
		return errs.New(errs.NotFound, "cannot read %s: %w", c.Input, plainError(err))
	}
	want := c.Output == "" && c.VNC == 0
	switch {
	case want && !st.IsDir():
		return errs.WithRemedy(errs.New(errs.Invalid, "%s is not a directory", c.Input),
			"give its directory to watch it in a browser, -vnc PORT to watch it in a viewer, or a file to make of it")
	case !want && !st.Mode().IsRegular():
		return errs.New(errs.Invalid, "%s is not a recording: it is no plain file", c.Input)
	}
	return nil
}

func (c *Config) period() time.Duration { return time.Second / time.Duration(c.Rate) }

func (c *Config) address(port int) string { return joinPort(c.Listen, port) }

func isDirectory(path string) bool {
	st, err := os.Stat(filepath.Clean(path))
	return err == nil && st.IsDir()
}

func itoa(n int) string { return strconv.Itoa(n) }
