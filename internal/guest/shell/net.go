package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"minimega/internal/guest/ping"
)

func runPing(ctx context.Context, _ *session, args []string, out io.Writer) error {
	count := 0
	if len(args) > 1 && args[0] == "-c" {
		n, err := strconv.Atoi(args[1])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no count", args[1])
		}
		count, args = n, args[2:]
	}
	if len(args) != 1 {
		return errors.New("want [-c COUNT] HOST")
	}
	p, err := ping.Dial(ctx, args[0])
	if err != nil {
		return err
	}
	defer p.Close()
	fmt.Fprintf(out, "PING %s (%s)\n", args[0], p.Addr)
	sent, got := 0, 0
	for ctx.Err() == nil && (count == 0 || sent < count) {
		if sent > 0 {
			wait(ctx, time.Second)
		}
		sent++
		rtt, err := p.Echo(ctx, sent, 2*time.Second)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			fmt.Fprintf(out, "%s: seq=%d %v\n", p.Addr, sent, err)
		default:
			got++
			fmt.Fprintf(out, "%s: seq=%d time=%.3f ms\n", p.Addr, sent, float64(rtt.Microseconds())/1000)
		}
	}
	fmt.Fprintf(out, "%d sent, %d received\n", sent, got)
	return nil
}

func runFetch(ctx context.Context, s *session, args []string, out io.Writer) error {
	if len(args) < 1 || len(args) > 2 {
		return errors.New("want URL [FILE]")
	}
	to := io.Discard
	if len(args) == 2 {
		f, err := os.Create(s.path(args[1]))
		if err != nil {
			return err
		}
		defer f.Close()
		to = f
	}
	start := time.Now()
	n, err := fetch(ctx, args[0], to)
	if err != nil {
		return err
	}
	took := time.Since(start)
	_, err = fmt.Fprintf(out, "%d bytes in %.3f s (%.2f MB/s)\n", n, took.Seconds(), float64(n)/1e6/max(took.Seconds(), 1e-6))
	return err
}

func runGet(ctx context.Context, _ *session, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("want URL")
	}
	_, err := fetch(ctx, args[0], out)
	return err
}

func fetch(ctx context.Context, url string, to io.Writer) (int64, error) {
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return 0, errors.New("the server says " + resp.Status)
	}
	return io.Copy(to, resp.Body)
}
