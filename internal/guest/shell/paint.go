package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"
)

// runPaint changes every character cell of the screen again and again, so
// that whoever watches or records it has something to do.
func runPaint(ctx context.Context, s *session, args []string, out io.Writer) error {
	d, err := seconds(args)
	if err != nil {
		return err
	}
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	defer io.WriteString(out, "\x1b[0m\x1b[2J\x1b[H")
	for n := 0; ; n++ {
		if _, err := out.Write(frame(n, s.Width, s.Height)); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-end.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

// frame is the n-th picture: moving stripes of the eight ANSI colours.
func frame(n, width, height int) []byte {
	var b bytes.Buffer
	b.WriteString("\x1b[H")
	for y := range height {
		if y > 0 {
			b.WriteString("\n")
		}
		colour := -1
		for x := range width - 1 { // the last column would scroll
			if c := (x/8 + y/3 + n) % 8; c != colour {
				colour = c
				fmt.Fprintf(&b, "\x1b[%d;%dm", 30+(c+4)%8, 40+c)
			}
			b.WriteByte(byte('!' + (x*7+y*13+n)%90))
		}
	}
	b.WriteString("\x1b[0m")
	return b.Bytes()
}

func runLoad(ctx context.Context, _ *session, args []string, _ io.Writer) error {
	d, err := seconds(args)
	if err != nil {
		return err
	}
	end := time.Now().Add(d)
	for n := uint64(1); ctx.Err() == nil && time.Now().Before(end); {
		for range 1 << 16 {
			n = n*6364136223846793005 + 1442695040888963407 // work the compiler cannot leave out
		}
		if n == 0 {
			return nil
		}
	}
	return nil
}
