// Command rfbplay measures recordings of a screen on which somebody types: how
// large they are, and how fast they become frames and films, beside the same
// made with the encoders of the standard library.
package main

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color/palette"
	"image/draw"
	"image/gif"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"minimega/bench/figure"
	"minimega/internal/guest"
	"minimega/internal/rfbplay"
	"minimega/pkg/vnc"
)

const (
	rounds = 3
	typing = 60 * time.Second
	pause  = 200 * time.Millisecond // between two letters: 60 words a minute
)

func main() { figure.Main(run) }

func run() error {
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "typing.fb")
	if err := record(dir, path); err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	figure.Alone("recording of a typing user, a minute", fmt.Sprintf("%.2f MB", float64(st.Size())/1e6*float64(time.Minute)/float64(typing)), "<= 2 MB")
	for _, kind := range []string{"png", "gif"} {
		if err := compare(dir, path, kind); err != nil {
			return err
		}
	}
	return nil
}

// record boots a guest, and records its screen while somebody types there.
func record(dir, path string) error {
	kernel, err := guest.FindKernel()
	if err != nil {
		return err
	}
	initrd := filepath.Join(dir, "initrd")
	if out, err := exec.Command("bin/minimega", "guest", "initrd", "-o", initrd).CombinedOutput(); err != nil {
		return fmt.Errorf("make an initrd: %w: %s", err, out)
	}
	ctx := context.Background()
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	for _, command := range []string{"vm config kernel " + kernel.Path, "vm config initrd " + initrd, "vm config memory 160",
		"vm config serial-ports 1", "vm config append console=ttyS0 quiet hostname=g ip=none", "vm launch kvm typist", "vm start typist"} {
		if err := d.Run(ctx, command); err != nil {
			return err
		}
	}
	if err := booted(filepath.Join(d.Base, "0", "serial0")); err != nil {
		return err
	}
	if err := d.Run(ctx, "vnc record fb typist "+path); err != nil {
		return err
	}
	const text = "ls -l /proc\n"
	start := time.Now()
	for i := 0; time.Since(start) < typing; i++ {
		if err := d.Run(ctx, fmt.Sprintf("vnc type typist %q", text[i%len(text):][:1])); err != nil {
			return err
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
	return d.Run(ctx, "vnc stop fb typist")
}

// booted presses Return at a guest's serial port until there is a prompt.
func booted(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer c.Close()
	said, buf := "", make([]byte, 4096)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if _, err := c.Write([]byte("\r")); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if said += string(buf[:n]); strings.Contains(said, "g# ") {
			return nil
		}
	}
	return fmt.Errorf("the guest does not boot: %q", said)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// compare makes frames or a film of a recording in both ways.
func compare(dir, path, kind string) error {
	var ours, theirs []time.Duration
	var length time.Duration
	for i := range rounds {
		out, err := os.MkdirTemp(dir, kind)
		if err != nil {
			return err
		}
		c := rfbplay.Default()
		c.Input, c.Output = path, filepath.Join(out, "f."+kind)
		t, err := figure.Time(func() error { return rfbplay.Run(context.Background(), c, io.Discard, io.Discard) })
		if err != nil {
			return err
		}
		ours = append(ours, t)
		t, err = figure.Time(func() error { length, err = standard(path, kind, filepath.Join(out, fmt.Sprint("std", i))); return err })
		if err != nil {
			return err
		}
		theirs = append(theirs, t)
	}
	speed := length.Seconds() / figure.Median(ours).Seconds()
	what := map[string]string{"png": "to PNG frames", "gif": "to a GIF"}[kind]
	figure.Against(fmt.Sprintf("%s of recording %s", length.Round(time.Second), what), ours, "image/"+kind, theirs, "faster")
	figure.Alone("that is, times real time", fmt.Sprintf("%.0f", speed), ">= 20")
	return nil
}

// standard makes the same, ten frames a second, as image/png and image/gif do it.
func standard(path, kind, out string) (time.Duration, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r, err := vnc.NewFBReader(f)
	if err != nil {
		return 0, err
	}
	film := &gif.GIF{}
	var last time.Duration
	n := 0
	for frame, err := range r.All() {
		if err != nil {
			return 0, err
		}
		for ; last <= frame.Offset; last += 100 * time.Millisecond {
			if frame.Image.Rect.Empty() {
				continue
			}
			if kind == "png" {
				if err := frameFile(fmt.Sprintf("%s-%06d.png", out, n), frame.Image); err != nil {
					return 0, err
				}
				n++
				continue
			}
			p := image.NewPaletted(frame.Image.Rect, palette.Plan9)
			draw.Draw(p, p.Rect, frame.Image, image.Point{}, draw.Src)
			film.Image, film.Delay = append(film.Image, p), append(film.Delay, 10)
		}
	}
	if kind == "png" {
		return last, nil
	}
	w, err := os.Create(out)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	return last, gif.EncodeAll(w, film)
}

func frameFile(name string, m image.Image) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := png.Encode(f, m); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
