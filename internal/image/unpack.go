package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"minimega/internal/decompress"
	"minimega/internal/errs"
)

// unpacked says what an archive turned out to be.
type unpacked struct {
	digest v1.Hash // of the archive as it came
	diffID v1.Hash // of the tar archive in it
	size   int64   // of all files
	files  int64
}

// unpack makes the content of a layer, a tar archive that may be compressed,
// in an empty directory. Whiteouts become those of the overlay file system,
// devices are left out. packed, which may be nil, is told of the bytes read.
// The caller removes the directory when it fails.
func unpack(ctx context.Context, dir string, r io.Reader, limits Limits, packed func(int64)) (unpacked, error) {
	t, err := openTree(dir)
	if err != nil {
		return unpacked{}, err
	}
	u := unpacker{tree: t, limits: limits, owners: os.Geteuid() == 0, dirs: map[string]attributes{}, block: make([]byte, blockSize)}
	done, err := u.run(ctx, r, packed)
	return done, errors.Join(err, t.Close())
}

const (
	blockSize = 256 << 10
	zeroRun   = 4 << 10 // a page of zeros becomes a hole
)

var zeros [zeroRun]byte

// unpacker is an archive on its way into a directory.
type unpacker struct {
	*tree
	ctx    context.Context
	limits Limits
	owners bool // keep them
	in     *counter
	tar    *tar.Reader

	dirs    map[string]attributes // to be set last: entries made in them would change or need them
	kept    int                   // size of dirs in memory
	entries int64
	size    int64
	unseen  int64 // bytes since the last look at the free room
	block   []byte
}

func (u *unpacker) run(ctx context.Context, r io.Reader, packed func(int64)) (unpacked, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	whole, inner := sha256.New(), sha256.New()
	u.ctx, u.in = ctx, &counter{ctx: ctx, r: io.TeeReader(r, whole), add: packed}
	if err := u.limits.room(int(u.root.Fd()), 0); err != nil {
		return unpacked{}, err
	}
	z, err := decompress.Reader(ctx, u.in)
	if err != nil {
		return unpacked{}, bad(err)
	}
	defer z.Close()
	out := &bounded{counter: counter{ctx: ctx, r: io.TeeReader(z, inner)}, in: u.in, limits: u.limits}
	u.tar = tar.NewReader(out)
	if err := u.all(); err != nil {
		return unpacked{}, err
	}
	// What follows the end of the archive counts for the digests.
	for _, rest := range []io.Reader{out, u.in} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return unpacked{}, bad(err)
		}
	}
	return unpacked{digest: sum(whole), diffID: sum(inner), size: u.size, files: u.entries}, nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}
}

// bad gives the errors of damaged archives their kind.
func bad(err error) error {
	switch {
	case err == nil, errs.KindOf(err) != errs.Internal, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errs.WithRemedy(errs.New(errs.Resource, "disk full: %w", err), "make room, or use another -base")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errs.New(errs.Invalid, "the archive is cut off: %w", err)
	case errors.Is(err, tar.ErrHeader):
		return errs.New(errs.Invalid, "damaged, or no tar archive: %w", err)
	}
	return err
}

// all makes all entries.
func (u *unpacker) all() error {
	for {
		h, err := u.tar.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		u.entries++
		if err := u.limits.checkEntries(u.entries); err != nil {
			return err
		}
		name, err := clean(h.Name)
		if err != nil {
			return err
		}
		if err := u.entry(h, name); err != nil {
			return fmt.Errorf("%.200s: %w", name, bad(err))
		}
	}
	for name, a := range u.dirs {
		if err := u.finishDir(name, a); err != nil {
			return fmt.Errorf("%.200s: %w", name, bad(err))
		}
	}
	return nil
}

// entry makes one entry.
func (u *unpacker) entry(h *tar.Header, name string) error {
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errs.New(errs.Invalid, "the root is to be no directory")
		}
		return u.later(name, h)
	}
	dir, base := path.Split(name)
	if strings.HasPrefix(dir, whiteoutPrefix) || strings.Contains(dir, "/"+whiteoutPrefix) {
		return errs.New(errs.Invalid, "an entry in a whiteout")
	}
	parent, _, err := u.at(name)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parent, base)
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.directory(parent, base, name, h)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		return u.file(parent, base, h)
	case tar.TypeSymlink:
		return u.symlink(parent, base, h)
	case tar.TypeLink:
		return u.link(parent, base, name, h)
	case tar.TypeFifo:
		return u.fifo(parent, base, h)
	}
	return nil // devices: containers get those they may have; and what tar may invent
}

// whiteout hides what lower layers have.
func (u *unpacker) whiteout(parent int, base string) error {
	if base == opaqueName {
		return opaque(parent)
	}
	if strings.HasPrefix(base, reservedPrefix) {
		return nil // bookkeeping of another storage driver
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return errs.New(errs.Invalid, "a whiteout of %q", hidden)
	}
	return u.hide(parent, hidden)
}

func (u *unpacker) directory(parent int, base, name string, h *tar.Header) error {
	what, err := sortAt(parent, base)
	if err != nil {
		return err
	}
	if what != directory {
		if err := u.replace(parent, base); err != nil {
			return err
		}
		if err := u.mkdir(parent, base, 0o700); err != nil {
			return err
		}
	}
	if what == whiteout {
		fd, err := openDirAt(parent, base)
		if err != nil {
			return err
		}
		if err := errors.Join(opaque(fd), unix.Close(fd)); err != nil {
			return err
		}
	}
	return u.later(name, h)
}

// maxKept bounds the memory for directories, in bytes.
const maxKept = 256 << 20

// later keeps what is to become of a directory.
func (u *unpacker) later(name string, h *tar.Header) error {
	a, err := attributesOf(h)
	if err != nil {
		return err
	}
	if u.kept += a.memory() + len(name); u.kept > maxKept {
		return errs.New(errs.Resource, "too many directories with too long names")
	}
	u.dirs[name] = a
	return nil
}

func (u *unpacker) finishDir(name string, a attributes) error {
	fd := int(u.root.Fd())
	if name != "." {
		parent, base, err := u.at(name)
		if err == nil {
			fd, err = openDirAt(parent, base)
		}
		if err != nil {
			return nil // replaced by a later entry
		}
		defer unix.Close(fd)
	}
	return a.set(fd, u.owners)
}

func (u *unpacker) file(parent int, base string, h *tar.Header) (err error) {
	a, err := attributesOf(h)
	if err != nil {
		return err
	}
	if err := u.account(h.Size); err != nil {
		return err
	}
	if err := u.replace(parent, base); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	if err := u.copy(f, h.Size); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(a.set(fd, u.owners), f.Close())
}

// account refuses a file that is too large, before a byte of it is written.
func (u *unpacker) account(size int64) error {
	if size < 0 {
		return errs.New(errs.Invalid, "a file of %d bytes", size)
	}
	if u.size+size < 0 {
		return over("max-bytes", "unpacks to more than any disk has")
	}
	u.size += size
	if err := u.limits.checkBytes(u.in.n.Load(), u.size); err != nil {
		return err
	}
	if u.unseen += size; u.unseen < u.limits.step() {
		return nil
	}
	u.unseen = 0
	return u.limits.room(int(u.root.Fd()), 0)
}

// copy writes size bytes and makes holes of zeros.
func (u *unpacker) copy(f *os.File, size int64) error {
	for done := int64(0); done < size; {
		if u.ctx.Err() != nil { // zeros of a sparse file are not read from anywhere
			return context.Cause(u.ctx)
		}
		block := u.block[:min(int64(len(u.block)), size-done)]
		if _, err := io.ReadFull(u.tar, block); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := writeData(f, block, done); err != nil {
			return err
		}
		if done += int64(len(block)); done%(16<<20) == 0 {
			if err := u.limits.room(int(f.Fd()), 0); err != nil {
				return err
			}
		}
	}
	return f.Truncate(size)
}

// writeData writes the pages of a block that are not zero, neighbours at once.
func writeData(f *os.File, block []byte, at int64) error {
	for start := 0; start < len(block); {
		end := start
		for end < len(block) && !isZero(block[end:min(end+zeroRun, len(block))]) {
			end = min(end+zeroRun, len(block))
		}
		if end > start {
			if _, err := f.WriteAt(block[start:end], at+int64(start)); err != nil {
				return err
			}
		}
		start = end + zeroRun
	}
	return nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeros[:len(b)]) }
