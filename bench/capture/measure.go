package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"minimega/internal/capture"
	"minimega/internal/capture/pcap"
)

// result is one round of one program.
type result struct {
	arrived  uint64 // at the interface, by its own counter
	captured uint64 // packets of the flood in the file
	dropped  uint64 // as the program says
	seconds  float64
}

// program starts a capture to path and returns what ends it and says how much was dropped.
type program struct {
	name  string
	start func(ctx context.Context, path string) (stop func() (dropped uint64, err error), err error)
}

func measure(o options) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	dir, err := os.MkdirTemp(o.dir, "bench-capture-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	f, err := newFlooder()
	if f != nil {
		defer f.close()
	}
	if err != nil {
		return err
	}
	programs := []program{{"minimega", ours}, {"tcpdump", tcpdump}}
	results := map[string][]result{}
	fmt.Printf("%-10s %5s %12s %12s %12s %10s %14s\n", "program", "round", "sent/s", "arrived", "captured", "dropped", "unaccounted")
	for round := range o.rounds {
		for _, p := range programs {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r, sent, err := oneRound(ctx, f, p, filepath.Join(dir, "flood.pcap"), time.Duration(o.seconds)*time.Second)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			results[p.name] = append(results[p.name], r)
			fmt.Printf("%-10s %5d %12.0f %12d %12d %10d %14d\n", p.name, round+1, float64(sent)/r.seconds,
				r.arrived, r.captured, r.dropped, int64(r.arrived)-int64(r.captured+r.dropped))
		}
	}
	summary(results)
	return nil
}

func oneRound(ctx context.Context, f *flooder, p program, path string, d time.Duration) (r result, sent uint64, err error) {
	stop, err := p.start(ctx, path)
	if err != nil {
		return r, 0, err
	}
	before, err := f.arrived()
	begin := time.Now()
	if err == nil {
		sent, err = f.flood(d)
	}
	r.seconds = time.Since(begin).Seconds()
	if err == nil {
		r.arrived, err = f.arrived()
	}
	r.arrived -= before
	dropped, stopErr := stop()
	r.dropped = dropped
	if err = errors.Join(err, stopErr); err != nil {
		return r, sent, err
	}
	r.captured, err = count(path)
	return r, sent, errors.Join(err, os.Remove(path))
}

// ours is this project's capture.
func ours(ctx context.Context, path string) (func() (uint64, error), error) {
	m := capture.New(slog.New(slog.DiscardHandler))
	spec := capture.Spec{Namespace: "bench", VM: "flood", Path: path}
	if err := m.StartLink(ctx, spec, targetName); err != nil {
		return nil, err
	}
	return func() (uint64, error) {
		// The flood is over, so the kernel's count of drops is final; what waits
		// in the ring reaches the file before Close returns.
		infos := m.List()
		if len(infos) != 1 {
			return 0, errors.New("the capture ended by itself")
		}
		return infos[0].Drops, errors.Join(infos[0].Err, m.Close(context.Background()))
	}, nil
}

var droppedLine = regexp.MustCompile(`(?m)^(\d+) packets? dropped by kernel`)

// tcpdump is the peer, with the same snaplen and its own defaults else.
func tcpdump(ctx context.Context, path string) (func() (uint64, error), error) {
	c := exec.CommandContext(ctx, "tcpdump", "-i", targetName, "-s", strconv.Itoa(capture.DefaultSnaplen), "-w", path)
	pipe, err := c.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	// It has its socket once it says that it listens.
	stderr := bufio.NewReader(pipe)
	for line := ""; !bytes.Contains([]byte(line), []byte("listening on")); {
		if line, err = stderr.ReadString('\n'); err != nil {
			return nil, errors.Join(fmt.Errorf("tcpdump did not start: %w", err), c.Wait())
		}
	}
	return func() (uint64, error) {
		// What its buffer holds it reads before it ends only if it gets the time.
		calm := time.NewTimer(time.Second)
		defer calm.Stop()
		select {
		case <-calm.C:
		case <-ctx.Done():
		}
		if err := c.Process.Signal(syscall.SIGINT); err != nil {
			return 0, err
		}
		rest, err := io.ReadAll(stderr)
		if err = errors.Join(err, c.Wait()); err != nil {
			return 0, err
		}
		m := droppedLine.FindSubmatch(rest)
		if m == nil {
			return 0, fmt.Errorf("no count of drops in %q", rest)
		}
		return strconv.ParseUint(string(m[1]), 10, 64)
	}, nil
}

// count counts the packets of the flood in a file.
func count(path string) (n uint64, err error) {
	r, err := pcap.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Close() }()
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		if len(p.Data) > 38 && p.Data[12] == 8 && p.Data[13] == 0 && p.Data[23] == 17 && p.Data[37] == 7 {
			n++
		}
	}
}

func summary(results map[string][]result) {
	fmt.Println()
	medians := map[string]float64{}
	for _, name := range []string{"minimega", "tcpdump"} {
		var rate, share []float64
		drops := uint64(0)
		for _, r := range results[name] {
			rate = append(rate, float64(r.captured)/r.seconds)
			share = append(share, float64(r.captured)/float64(max(r.arrived, 1)))
			drops += r.dropped
		}
		medians[name] = median(share)
		fmt.Printf("%-10s median %.2f%% of what arrived captured, %.0f packets/s, %d dropped in all\n",
			name, 100*medians[name], median(rate), drops)
	}
	fmt.Printf("ratio of medians (share captured), minimega / tcpdump: %.3f\n", medians["minimega"]/medians["tcpdump"])
}

func median(v []float64) float64 {
	slices.Sort(v)
	n := len(v)
	if n%2 == 1 {
		return v[n/2]
	}
	return (v[n/2-1] + v[n/2]) / 2
}
