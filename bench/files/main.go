// Command files measures how long it takes to bring 1 GiB of random bytes from
// one host to 1, 4 and 9 others by pkg/iomeshage over a mesh with a key, where
// all is encrypted, and over one that is open, where nothing is, beside copies
// of the same file to as many receivers that check nothing: by bare TCP, and by
// TLS 1.3. With -mesh slow the source sends at most 16 MiB/s to 9 others, files
// of several sizes; beside it is the time in which it can send each once, which
// no way of sharing beats. Hosts are processes in network namespaces of their
// own, connected by a bridge; files lie in memory. It must be root.
package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"minimega/bench/figure"
	"minimega/pkg/meshage"
)

const (
	size   = 1 << 30
	slow   = "slow"   // the kind of mesh in which the source is
	rate   = 16 << 20 // bytes per second that it sends then
	name   = "disk.raw"
	rounds = 3
	hosts  = 10
	memory = "/dev/shm"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "host" {
		figure.Main(func() error { return serve(os.Args[2:]) })
		return
	}
	figure.Main(run)
}

func run() error {
	modes := flag.String("mesh", "key,open,slow", "the kinds of mesh, with commas between them")
	receivers := flag.String("hosts", "1,4,9", "the numbers of receivers, with commas between them")
	flag.Parse()
	var counts []int
	for _, f := range strings.Split(*receivers, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 1 || n >= hosts {
			return fmt.Errorf("-hosts: %q is not a number of receivers from 1 to %d", f, hosts-1)
		}
		counts = append(counts, n)
	}
	for _, mode := range strings.Split(*modes, ",") {
		if mode != "key" && mode != "open" && mode != slow {
			return fmt.Errorf("-mesh: %q is neither key nor open nor slow", mode)
		}
		fmt.Printf("mesh: %s\n", mode)
		if err := inMode(mode, counts); err != nil {
			return fmt.Errorf("mesh %s: %w", mode, err)
		}
	}
	return nil
}

func inMode(mode string, counts []int) (err error) {
	dir, err := os.MkdirTemp(memory, "mmbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key, err := meshage.GenerateKey()
	if err == nil {
		err = key.Save(filepath.Join(dir, "key"))
	}
	if err != nil {
		return err
	}
	l, err := newLab(dir, mode, hosts)
	defer func() { err = errors.Join(err, l.close()) }()
	if err != nil {
		return err
	}
	source := filepath.Join(dir, "h0", name)
	if mode == slow {
		return l.slowly(source)
	}
	if err := fill(source, size); err != nil {
		return err
	}
	for _, n := range counts {
		if err := l.measure(source, n, mode == "key"); err != nil {
			return err
		}
	}
	return nil
}

// slowly measures a source of which each receiver could have a part only.
func (l *lab) slowly(source string) error {
	for _, size := range []int64{4 << 20, 24 << 20, 128 << 20} {
		if err := fill(source, size); err != nil {
			return err
		}
		once := time.Duration(float64(size) / rate * float64(time.Second))
		var ours cost
		for range rounds {
			if err := l.fetch(&ours, source, hosts-1); err != nil {
				return err
			}
		}
		figure.Against(fmt.Sprintf("%d MiB to %d hosts at %d MiB/s", size>>20, hosts-1, rate>>20), ours.wall, "sent once", []time.Duration{once}, "<= 2")
	}
	return nil
}

func fill(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.Reader, size)
	return errors.Join(err, f.Close())
}

// cost is what one way took.
type cost struct{ wall, cpu []time.Duration }

func (l *lab) spend(c *cost, n int, command string) error {
	before, err := l.cpu()
	if err != nil {
		return err
	}
	wall, err := l.all(n, command)
	if err != nil {
		return err
	}
	after, err := l.cpu()
	c.wall, c.cpu = append(c.wall, wall), append(c.cpu, after-before)
	return err
}

// measure lets all ways take turns.
func (l *lab) measure(source string, n int, encrypted bool) error {
	var ours, bare, secure cost
	for range rounds {
		if err := l.spend(&bare, n, "bare "+l.hosts[0].address); err != nil {
			return fmt.Errorf("bare copy: %w", err)
		}
		if encrypted {
			if err := l.spend(&secure, n, "tls "+l.hosts[0].address); err != nil {
				return fmt.Errorf("TLS copy: %w", err)
			}
		}
		if err := l.fetch(&ours, source, n); err != nil {
			return err
		}
	}
	what := fmt.Sprintf("1 GiB to %d hosts, %.0f MB/s in all", n, float64(n)*size/1e6/figure.Median(ours.wall).Seconds())
	if encrypted {
		ours.against(what, "TLS", secure, "<= 1.3")
	}
	ours.against(what, "bare TCP", bare, "<= 1.3")
	return nil
}

// fetch brings the file to n hosts by what is measured. A new time makes it one
// whose hashes nobody knows yet.
func (l *lab) fetch(c *cost, source string, n int) error {
	if err := os.Chtimes(source, time.Now(), time.Now()); err != nil {
		return err
	}
	if err := l.spend(c, n, "get "+name); err != nil {
		return fmt.Errorf("get: %w", err)
	}
	return l.check(source, n)
}

// against prints what it took beside a peer.
func (c *cost) against(what, peer string, theirs cost, target string) {
	figure.Against(what, c.wall, peer, theirs.wall, target)
	figure.Against("  processor time of all", c.cpu, peer, theirs.cpu, "-")
}

// cpu is what all hosts have used so far.
func (l *lab) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, h := range l.hosts {
		ns, err := h.ask("cpu")
		if err != nil {
			return 0, err
		}
		n, err := strconv.ParseInt(ns, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// all lets the first n receivers do the same at the same time.
func (l *lab) all(n int, command string) (time.Duration, error) {
	for _, h := range l.hosts[1:] {
		if err := os.Remove(filepath.Join(h.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
	}
	return figure.Time(func() error {
		var wg sync.WaitGroup
		errs := make([]error, n)
		for i, h := range l.hosts[1 : n+1] {
			wg.Go(func() { errs[i] = h.do(command) })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
}

// check compares what has come with the source, byte by byte.
func (l *lab) check(source string, n int) error {
	for _, h := range l.hosts[1 : n+1] {
		if err := same(source, filepath.Join(h.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	pa, pb := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, erra := io.ReadFull(fa, pa)
		m, errb := io.ReadFull(fb, pb)
		if n != m || !bytes.Equal(pa[:n], pb[:m]) {
			return fmt.Errorf("%s is not %s", b, a)
		}
		if erra != nil || errb != nil {
			return nil
		}
	}
}

// do lets a host do something, and waits until it is done.
func (h *host) do(command string) error {
	_, err := h.ask(command)
	return err
}

// ask sends a command to a host and returns the line before its "ok".
func (h *host) ask(command string) (answer string, err error) {
	if _, err := fmt.Fprintln(h.in, command); err != nil {
		return "", err
	}
	for h.out.Scan() {
		switch line := h.out.Text(); {
		case line == "ok":
			return answer, nil
		case strings.HasPrefix(line, failed):
			return "", fmt.Errorf("%s: %s", h.name, strings.TrimPrefix(line, failed))
		default:
			answer = line
		}
	}
	return "", fmt.Errorf("%s has ended (%w)", h.name, errors.Join(h.out.Err(), io.ErrUnexpectedEOF))
}
