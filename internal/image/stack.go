package image

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// stack looks up files in layers as the overlay file system shows them, so
// that what an image says of itself can be read without a mount.
type stack []string // directories, topmost first

const maxLinks = 40 // as the kernel follows, see path_resolution(7)

// find returns where a path of the image lies on the host and what it is,
// links followed. fs.ErrNotExist if there is nothing.
func (s stack) find(name string) (string, *unix.Stat_t, error) {
	layers := s // those that have a say at the present directory
	at, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			layers = s.dir(at)
			continue
		}
		host, st, below := layers.entry(at, part)
		if st == nil {
			return "", nil, fs.ErrNotExist
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err := os.Readlink(host)
			if links++; err != nil || links > maxLinks {
				return "", nil, errors.Join(fs.ErrInvalid, err)
			}
			if strings.HasPrefix(target, "/") {
				at, layers = "/", s
			}
			rest = append(strings.Split(target, "/"), rest...)
		case unix.S_IFDIR:
			at, layers = path.Join(at, part), below
		default:
			if len(rest) > 0 {
				return "", nil, unix.ENOTDIR
			}
			return host, st, nil
		}
	}
	for _, dir := range layers {
		var st unix.Stat_t
		if err := unix.Lstat(dir+at, &st); err == nil {
			return dir + at, &st, nil
		}
	}
	return "", nil, fs.ErrNotExist
}

// dir returns the layers that have a say in a directory without links.
func (s stack) dir(name string) stack {
	layers, at := s, "/"
	for part := range strings.SplitSeq(strings.Trim(name, "/"), "/") {
		if part != "" {
			_, _, layers = layers.entry(at, part)
			at = path.Join(at, part)
		}
	}
	return layers
}

// entry returns the topmost file of this name, nil if there is none, and for a
// directory the layers that have it too, down to one that hides those below.
func (s stack) entry(at, name string) (host string, st *unix.Stat_t, below stack) {
	for _, dir := range s {
		p := dir + path.Join(at, name)
		var one unix.Stat_t
		if err := unix.Lstat(p, &one); err != nil {
			continue
		}
		isDir := one.Mode&unix.S_IFMT == unix.S_IFDIR
		if st == nil {
			if one.Mode&unix.S_IFMT == unix.S_IFCHR {
				return "", nil, nil
			}
			host, st = p, &one
		}
		if !isDir {
			break
		}
		below = append(below, dir)
		if isOpaque(p) {
			break
		}
	}
	return host, st, below
}

func isOpaque(dir string) bool {
	var value [1]byte
	for _, attr := range []string{opaqueAttr, opaqueUserAttr} {
		if n, err := unix.Lgetxattr(dir, attr, value[:]); err == nil && n == 1 && value[0] == 'y' {
			return true
		}
	}
	return false
}

// read returns a regular file of the image, at most max bytes.
func (s stack) read(name string, max int64) ([]byte, error) {
	host, st, err := s.find(name)
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fs.ErrInvalid
	}
	f, err := os.OpenFile(host, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, max))
}
