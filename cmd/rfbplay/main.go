// Command rfbplay shows recordings of screens made by `vnc record fb`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"minimega/internal/errs"
	"minimega/internal/rfbplay"
)

const usage = `usage: rfbplay [flag...] DIRECTORY         show its recordings in a browser, as MJPEG over HTTP;
                                           ?offset=1m30s after a name starts later
       rfbplay -vnc PORT [flag...] FILE    show a recording to VNC viewers; space holds it,
                                           arrow keys seek, Home starts again
       rfbplay [flag...] FILE OUTPUT       make frame-%05d.png (a file per frame), a .gif, or,
                                           where ffmpeg is installed, .mp4, .webm and others

flags:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := rfbplay.Default()
	flag.IntVar(&c.Port, "port", c.Port, "HTTP `port`")
	flag.StringVar(&c.Listen, "listen", c.Listen, "`address` of the HTTP or VNC server; 0.0.0.0 lets other hosts in")
	flag.IntVar(&c.VNC, "vnc", 0, "show a recording as a VNC server on `port`")
	flag.DurationVar(&c.Offset, "offset", 0, "start at this `time` of the recording")
	flag.IntVar(&c.Rate, "rate", c.Rate, "`frames` a second")
	flag.StringVar(&c.FFmpeg, "ffmpeg", c.FFmpeg, "`program` that makes films")
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage); flag.PrintDefaults() }
	flag.Parse()
	if flag.NArg() < 1 || flag.NArg() > 2 {
		flag.Usage()
		os.Exit(2)
	}
	c.Input, c.Output = flag.Arg(0), flag.Arg(1)
	err := rfbplay.Run(ctx, c, os.Stdout, os.Stderr)
	switch {
	case err == nil:
		return
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "rfbplay: interrupted; nothing was made")
	default:
		fmt.Fprintln(os.Stderr, "rfbplay:", err)
	}
	if errs.KindOf(err) == errs.Invalid {
		os.Exit(2)
	}
	os.Exit(1)
}
