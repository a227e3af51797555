package fetch

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"minimega/internal/decompress"
	"minimega/internal/errs"
)

const (
	// MaxEntries bounds the entries of an archive.
	MaxEntries = 4 << 20
	// maxName bounds the length of a name in it, in bytes, as Linux does.
	maxName = 4096

	blockSize = 256 << 10
)

// ErrTopLevel refuses an archive whose content does not lie in one directory.
var ErrTopLevel = errs.New(errs.Invalid, "unable to handle tar without a single top-level directory")

// Untar unpacks the archive at file, which may be compressed, beside itself,
// and returns the one top-level directory it has. If that is there already it
// stays as it is.
//
// Owners are kept when running as root. Device files are left out: whoever
// uses the tree makes its own /dev.
func Untar(ctx context.Context, file string) (dir string, err error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	r, err := decompress.Reader(ctx, &ctxReader{ctx, f})
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", file, err)
	}
	defer r.Close()
	root, err := os.OpenRoot(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	defer root.Close()
	top, err := unpack(ctx, root, tar.NewReader(r))
	switch {
	case errors.Is(err, ErrTopLevel):
		return "", ErrTopLevel
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "", errs.WithRemedy(errs.New(errs.Invalid, "unpack %s: the archive is cut off: %w", file, err), "fetch or copy it again")
	case err != nil:
		return "", fmt.Errorf("unpack %s: %w", file, err)
	}
	return filepath.Join(filepath.Dir(file), top), nil
}

// unpack makes the archive's top-level directory in root and returns its name.
func unpack(ctx context.Context, root *os.Root, in *tar.Reader) (top string, err error) {
	h, name, err := next(in)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = ErrTopLevel
		}
		return "", err
	}
	top, _, _ = strings.Cut(name, "/")
	if name == top && h.Typeflag != tar.TypeDir {
		return "", ErrTopLevel
	}
	switch there, err := isDir(root, top); {
	case err != nil:
		return "", err
	case there:
		return top, nil
	}
	tmp := unfinished + suffix()
	if err := root.Mkdir(tmp, 0o700); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, root.RemoveAll(tmp)) }()
	into, err := root.OpenRoot(tmp)
	if err != nil {
		return "", err
	}
	defer into.Close()
	t := &tree{ctx: ctx, root: into, top: top, owners: os.Geteuid() == 0, block: make([]byte, blockSize), zeros: make([]byte, blockSize)}
	if err := t.fill(in, h, name); err != nil {
		return "", err
	}
	if err := root.Rename(path.Join(tmp, top), top); err != nil {
		if there, _ := isDir(root, top); !there { // else somebody else was faster
			return "", err
		}
	}
	return top, nil
}

// isDir reports whether name is a directory; it is an error if it is something else.
func isDir(root *os.Root, name string) (bool, error) {
	st, err := root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case !st.IsDir():
		return false, errs.New(errs.Exists, "%s is in the way", name)
	}
	return true, nil
}

// next returns the next entry that is not the directory of the archive itself.
func next(in *tar.Reader) (*tar.Header, string, error) {
	for {
		h, err := in.Next()
		if err != nil {
			return nil, "", err
		}
		name := path.Clean(h.Name)
		switch {
		case h.Typeflag == tar.TypeXGlobalHeader || name == ".":
			continue
		case len(name) > maxName || !fs.ValidPath(name) || strings.ContainsRune(name, 0):
			return nil, "", errs.New(errs.Invalid, "bad name %.100q in the archive", h.Name)
		}
		return h, name, nil
	}
}

// tree is a directory that is being unpacked.
type tree struct {
	ctx     context.Context
	root    *os.Root
	top     string
	owners  bool // keep them
	dirs    []*tar.Header
	entries int
	bytes   int64 // since the last look at the free room
	block   []byte
	zeros   []byte // as many as block has bytes
}

// fill makes all entries, h first. Modes and times of directories come last:
// entries made in them would fail or change them.
func (t *tree) fill(in *tar.Reader, h *tar.Header, name string) error {
	for {
		if first, _, _ := strings.Cut(name, "/"); first != t.top {
			return ErrTopLevel
		}
		if t.entries++; t.entries > MaxEntries {
			return errs.New(errs.Resource, "more than %d entries", MaxEntries)
		}
		h.Name = name
		if err := t.add(in, h); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		var err error
		if h, name, err = next(in); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
	}
	for i := len(t.dirs) - 1; i >= 0; i-- {
		if err := t.finish(t.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// add makes one entry.
func (t *tree) add(in io.Reader, h *tar.Header) error {
	if err := t.root.MkdirAll(path.Dir(h.Name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		t.dirs = append(t.dirs, h)
		return t.root.MkdirAll(h.Name, 0o755)
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		if err := t.file(in, h); err != nil {
			return err
		}
		return t.finish(h)
	case tar.TypeSymlink:
		if err := t.replace(h.Name); err != nil {
			return err
		}
		if err := t.root.Symlink(h.Linkname, h.Name); err != nil || !t.owners {
			return err
		}
		return t.root.Lchown(h.Name, h.Uid, h.Gid)
	case tar.TypeLink:
		if err := t.replace(h.Name); err != nil {
			return err
		}
		return t.root.Link(path.Clean(h.Linkname), h.Name)
	}
	return nil // devices, pipes and the rest
}

// replace removes what an earlier entry made in the place of this one.
func (t *tree) replace(name string) error {
	err := t.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (t *tree) file(in io.Reader, h *tar.Header) error {
	if h.Size > reserve/2-t.bytes {
		if err := room(t.root, h.Size); err != nil {
			return err
		}
		t.bytes = 0
	} else {
		t.bytes += h.Size
	}
	if err := t.replace(h.Name); err != nil {
		return err
	}
	f, err := t.root.OpenFile(h.Name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(t.copy(f, in, h.Size), f.Close())
}

// copy writes size bytes of in to f and leaves zeros out: a sparse file in an
// archive of a few bytes may have any size. For the same reason it looks at the
// context by itself: zeros are not read from anywhere.
func (t *tree) copy(f *os.File, in io.Reader, size int64) error {
	for done := int64(0); done < size; {
		if t.ctx.Err() != nil {
			return context.Cause(t.ctx)
		}
		block := t.block[:min(int64(len(t.block)), size-done)]
		if _, err := io.ReadFull(in, block); err != nil {
			return err
		}
		if !bytes.Equal(block, t.zeros[:len(block)]) {
			if _, err := f.WriteAt(block, done); err != nil {
				return err
			}
		}
		done += int64(len(block))
	}
	return f.Truncate(size)
}

// finish sets owner, mode and time. The mode comes after the owner, whose
// change drops the setuid bit.
func (t *tree) finish(h *tar.Header) error {
	if t.owners {
		if err := t.root.Lchown(h.Name, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	mode := h.FileInfo().Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky)
	if err := t.root.Chmod(h.Name, mode); err != nil {
		return err
	}
	return t.root.Chtimes(h.Name, h.AccessTime, h.ModTime)
}

// ctxReader ends with its context.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// suffix makes the name of a temporary file unlike any other.
func suffix() string { return "part-" + rand.Text()[:10] }
