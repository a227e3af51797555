package rfbplay

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"io"
	"os/exec"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
)

// ffmpegSink gives raw frames to ffmpeg, which knows all formats. A film has
// one size: that of the largest screen in the recording.
type ffmpegSink struct {
	out    *output
	cmd    *exec.Cmd
	in     io.WriteCloser
	words  lastWords
	canvas *image.RGBA
}

func newFFmpeg(ctx context.Context, c *Config) (*ffmpegSink, error) {
	program, err := exec.LookPath(c.FFmpeg)
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "cannot make %s: ffmpeg is not installed", c.Output),
			"install ffmpeg, or make a .gif or .png, which needs nothing")
	}
	size, err := c.largest(ctx)
	if err != nil {
		return nil, err
	}
	out, err := newOutput(c.Output)
	if err != nil {
		return nil, err
	}
	f := &ffmpegSink{out: out, canvas: image.NewRGBA(size)}
	if err := f.start(ctx, program, c.Rate); err != nil {
		out.abandon()
		return nil, errs.New(errs.Unsupported, "cannot make %s: %w", c.Output, err)
	}
	return f, nil
}

func (f *ffmpegSink) start(ctx context.Context, program string, rate int) error {
	name, err := filepath.Abs(f.out.Name())
	if err != nil {
		return err
	}
	f.cmd = exec.CommandContext(ctx, program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y",
		"-f", "rawvideo", "-pixel_format", "rgba", "-video_size", fmt.Sprintf("%dx%d", f.canvas.Rect.Dx(), f.canvas.Rect.Dy()),
		"-framerate", itoa(rate), "-i", "pipe:0", "-pix_fmt", "yuv420p", "file:"+name)
	f.cmd.Stdout, f.cmd.Stderr = &f.words, &f.words
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		return err
	}
	return f.cmd.Start()
}

// largest is a size that holds all screens of the recording from the offset
// on, even in both directions, as films want it.
func (c *Config) largest(ctx context.Context) (image.Rectangle, error) {
	rec, err := openRecording(c.Input)
	if err != nil {
		return image.Rectangle{}, err
	}
	defer rec.close()
	if _, err = rec.advance(c.Offset); err != nil {
		return image.Rectangle{}, err
	}
	all := rec.screen.Rect
	for at, more := rec.next(); more && ctx.Err() == nil; at, more = rec.next() {
		if _, err := rec.advance(at); err != nil {
			return all, err
		}
		all = all.Union(rec.screen.Rect)
	}
	if all.Empty() {
		return all, errs.New(errs.Invalid, "%s shows nothing after %s", c.Input, c.Offset)
	}
	return image.Rect(0, 0, (all.Dx()+1)&^1, (all.Dy()+1)&^1), ctx.Err()
}

func (f *ffmpegSink) frame(ctx context.Context, screen *image.RGBA, c change, n int64) error {
	if c.resized {
		draw.Draw(f.canvas, f.canvas.Rect, image.Black, image.Point{}, draw.Src)
		c.area = screen.Rect
	}
	draw.Draw(f.canvas, c.area, screen, c.area.Min, draw.Src)
	for range n {
		if _, err := f.in.Write(f.canvas.Pix); err != nil {
			_ = f.cmd.Wait() // it has ended, and said why
			return errors.Join(ctx.Err(), f.failed(err))
		}
	}
	return nil
}

func (f *ffmpegSink) failed(err error) error {
	if said := strings.TrimSpace(f.words.text); said != "" {
		err = errors.New(said)
	}
	return errs.New(errs.Invalid, "cannot make %s: ffmpeg: %w", f.out.path, err)
}

func (f *ffmpegSink) finish() (string, error) {
	_ = f.in.Close()
	if err := f.cmd.Wait(); err != nil {
		f.out.abandon()
		return "", f.failed(err)
	}
	return f.out.path, f.out.commit()
}

func (f *ffmpegSink) abandon() {
	_ = f.cmd.Process.Kill()
	_ = f.in.Close()
	_ = f.cmd.Wait() // an error says that it has been waited for before
	f.out.abandon()
}

// lastWords keeps the end of what a program writes.
type lastWords struct{ text string }

const maxWords = 2048

func (l *lastWords) Write(p []byte) (int, error) {
	l.text += string(p)
	l.text = l.text[max(0, len(l.text)-maxWords):]
	return len(p), nil
}
