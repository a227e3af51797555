package rfbplay

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"path/filepath"
	"strings"
	"time"

	"minimega/internal/errs"
)

// sink makes a file, or many, of the frames of a recording.
type sink interface {
	// frame shows a screen for n periods; c is what differs from the last one.
	// The screen changes after it returns.
	frame(ctx context.Context, screen *image.RGBA, c change, n int64) error
	// finish completes the output and says what was made; abandon removes it.
	finish() (string, error)
	abandon()
}

func (c *Config) transcode(ctx context.Context, stdout, stderr io.Writer) error {
	rec, err := openRecording(c.Input)
	if err != nil {
		return err
	}
	defer rec.close()
	out, err := c.sink(ctx)
	if err != nil {
		return err
	}
	bar := newProgress(stderr, c.every)
	length, err := c.frames(ctx, rec, out, bar)
	var made string
	if err != nil {
		out.abandon()
	} else {
		made, err = out.finish()
	}
	bar.done(length, err)
	if err != nil {
		return err
	}
	if errors.Is(rec.end, io.ErrUnexpectedEOF) {
		fmt.Fprintf(stderr, "rfbplay: %s was cut off after %s; all that it holds is in %s\n", c.Input, length.Round(time.Millisecond), c.Output)
	}
	fmt.Fprintf(stdout, "%s: %s of recording in %s\n", made, length.Round(100*time.Millisecond), bar.took().Round(10*time.Millisecond))
	return nil
}

// sink chooses by the extension of the output.
func (c *Config) sink(ctx context.Context) (sink, error) {
	if isDirectory(c.Output) {
		return nil, errs.WithRemedy(errs.New(errs.Invalid, "%s is a directory", c.Output), "name a file in it, such as "+filepath.Join(c.Output, "frame-%05d.png"))
	}
	switch strings.ToLower(filepath.Ext(c.Output)) {
	case ".png":
		return newPNGs(c.Output)
	case ".gif":
		return newGIF(c.Output, c.Rate)
	case "":
		return nil, errs.WithRemedy(errs.New(errs.Invalid, "%s does not say what to make", c.Output), "end it in .png, .gif, .mp4 or .webm")
	}
	return newFFmpeg(ctx, c)
}

// frames gives all frames from the offset on to out, and returns how much of
// the recording that was.
func (c *Config) frames(ctx context.Context, rec *recording, out sink, bar *progress) (time.Duration, error) {
	period := c.period()
	seen := false
	for t := c.Offset; ; {
		ch, err := rec.advance(t)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return 0, err
		}
		if !seen && !rec.screen.Rect.Empty() {
			ch = change{rec.screen.Rect, true}
		}
		at, more := rec.next()
		if at > maxLength {
			return 0, errs.New(errs.Invalid, "%s says that it lasts longer than ten years", c.Input)
		}
		n := max(1, int64((at-t+period-1)/period))
		if !rec.screen.Rect.Empty() {
			seen = true
			if err := out.frame(ctx, rec.screen, ch, n); err != nil {
				return 0, err
			}
		}
		t += time.Duration(n) * period
		bar.show(rec, t-c.Offset)
		if more {
			continue
		}
		if !seen {
			return 0, errs.New(errs.Invalid, "%s shows nothing after %s", c.Input, c.Offset)
		}
		return t - c.Offset, nil
	}
}
