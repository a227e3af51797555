// Command socket measures the command socket: round trips of `version` beside
// those of a bare echo of the same bytes, the start of the daemon, its memory.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"minimega/bench/figure"
)

const (
	rounds = 5
	trips  = 20_000
)

func main() { figure.Main(run) }

func run() error {
	ctx := context.Background()
	var starts []time.Duration
	for range rounds {
		d, err := figure.StartDaemon(ctx)
		if err != nil {
			return err
		}
		starts = append(starts, d.Start)
		if err := d.Close(); err != nil {
			return err
		}
	}
	d, err := figure.StartDaemon(ctx)
	if err != nil {
		return err
	}
	defer d.Close()
	time.Sleep(2 * time.Second) // for the probe of KVM to end: this is about an idle daemon
	rss, err := d.RSS()
	if err != nil {
		return err
	}
	echo, stop, err := startEcho()
	if err != nil {
		return err
	}
	defer stop()

	var ours, theirs []time.Duration
	for range rounds {
		o, err := roundTrips(filepath.Join(d.Base, "minimega"))
		if err != nil {
			return err
		}
		e, err := roundTrips(echo)
		if err != nil {
			return err
		}
		ours, theirs = append(ours, o...), append(theirs, e...)
	}
	mean := time.Duration(0)
	for _, t := range ours {
		mean += t
	}
	mean /= time.Duration(len(ours))
	figure.Against("socket: `version`, round trip", ours, "bare echo", theirs, "20,000/s")
	figure.Alone("socket: `version` on one connection", fmt.Sprintf("%.0f/s", float64(time.Second)/float64(mean)), "≥ 20,000/s")
	figure.Alone("socket: round trip, p99", figure.Quantile(ours, 0.99).String(), "< 1 ms")
	figure.Alone("daemon: start to socket", figure.Median(starts).String(), "< 200 ms")
	figure.Alone("daemon: idle RSS", fmt.Sprintf("%.1f MiB", rss), "< 40 MiB")
	return nil
}

var request = []byte(`{"Command":"version"}` + "\n")

// roundTrips sends the request again and again and waits for a line each time.
func roundTrips(path string) ([]time.Duration, error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r := bufio.NewReader(c)
	times := make([]time.Duration, trips)
	for i := range times {
		start := time.Now()
		if _, err := c.Write(request); err != nil {
			return nil, err
		}
		if _, err := r.ReadSlice('\n'); err != nil {
			return nil, err
		}
		times[i] = time.Since(start)
	}
	return times, nil
}

// startEcho answers each line with a line of the size of a real answer.
func startEcho() (path string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "mmbench")
	if err != nil {
		return "", nil, err
	}
	path = filepath.Join(dir, "echo")
	l, err := net.Listen("unix", path)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	answer := append(make([]byte, 0, 256), []byte(fmt.Sprintf("%0200d\n", 0))...)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					if _, err := r.ReadSlice('\n'); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	return path, func() { l.Close(); os.RemoveAll(dir) }, nil
}
