package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Limits bound what one archive may unpack to. Zero fields are the defaults,
// negative ones mean no limit.
type Limits struct {
	Bytes   int64 // size of all files together, holes included
	Entries int64 // files and directories
	Ratio   int64 // how often the archive's own size, once slack is used up
	Reserve int64 // bytes left free on the disk
}

// DefaultLimits leave room for the largest images in use.
func DefaultLimits() Limits {
	return Limits{Bytes: 64 << 30, Entries: 4 << 20, Ratio: 100, Reserve: 64 << 20}
}

// slack is what may come out of however small an archive: a few zeros in a row
// pack into nothing.
const slack = 256 << 20

// withDefaults fills in what is not given.
func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct{ v, def *int64 }{{&l.Bytes, &d.Bytes}, {&l.Entries, &d.Entries}, {&l.Ratio, &d.Ratio}, {&l.Reserve, &d.Reserve}} {
		if *f.v == 0 {
			*f.v = *f.def
		}
	}
	return l
}

// over is the error of an archive that goes beyond a limit. option is the one
// that lifts it.
func over(option, format string, args ...any) error {
	return errs.WithRemedy(errs.New(errs.Resource, format, args...),
		fmt.Sprintf("if you trust it, bring it in with `minimega image import -%s N REFERENCE` first", option))
}

// checkBytes refuses out bytes made from in.
func (l Limits) checkBytes(in, out int64) error {
	switch {
	case l.Bytes >= 0 && out > l.Bytes:
		return over("max-bytes", "unpacks to more than the limit of %d bytes (max-bytes)", l.Bytes)
	case l.Ratio >= 0 && out > slack && out/max(in, 1) >= l.Ratio:
		return over("max-ratio", "unpacks to more than %d times its size, which is the limit (max-ratio)", l.Ratio)
	}
	return nil
}

func (l Limits) checkEntries(n int64) error {
	if l.Entries >= 0 && n > l.Entries {
		return over("max-entries", "has more than the limit of %d entries (max-entries)", l.Entries)
	}
	return nil
}

// room fails when less than size and the reserve is free on the disk of fd.
func (l Limits) room(fd int, size int64) error {
	if l.Reserve < 0 {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	free := int64(min(st.Bavail*uint64(st.Bsize), 1<<62))
	if free < size || free-size < l.Reserve {
		return errs.WithRemedy(errs.New(errs.Resource, "disk full: %d MiB are free, %d MiB needed", free>>20, (size+l.Reserve)>>20),
			"make room, or use another -base")
	}
	return nil
}

// step is after how many bytes to look at the free room again.
func (l Limits) step() int64 { return max(l.Reserve/2, 1<<20) }

// counter counts what is read and ends with its context. One goroutine may read
// it while another asks how far it is.
type counter struct {
	ctx    context.Context
	r      io.Reader
	add    func(int64) // may be nil
	n      atomic.Int64
	failed atomic.Bool // reading failed
}

func (c *counter) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	if c.add != nil {
		c.add(int64(n))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.failed.Store(true)
	}
	return n, err
}

// bounded is what comes out of an archive, within limits.
type bounded struct {
	counter
	in     *counter
	limits Limits
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.counter.Read(p)
	if full := b.limits.checkBytes(b.in.n.Load(), b.n.Load()); full != nil {
		return n, full
	}
	if b.failed.Load() && !b.in.failed.Load() {
		return n, damaged(err)
	}
	return n, err
}

// damaged words the error of a decoder to whom all was given.
func damaged(err error) error {
	if err = bad(err); errs.KindOf(err) == errs.Internal && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return errs.New(errs.Invalid, "damaged: %w", err)
	}
	return err
}
