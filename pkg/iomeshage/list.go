package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Entry is a file or directory in the files directory of this host. A link
// counts as what it leads to; one that leads nowhere or out, or in a recursive
// list to a directory, is there by itself, with no hash.
type Entry struct {
	Name     string // relative to the files directory
	Dir      bool
	Size     int64 // bytes
	Modified time.Time
	Hash     string // of the content in hexadecimal, if files are hashed
}

// List returns what is at a path or pattern: of a directory what lies in it,
// or, recursive, all files and links below. What is still coming is left out.
func (s *Service) List(ctx context.Context, name string, recursive bool) ([]Entry, error) {
	at, err := s.clean(name)
	if err != nil {
		return nil, err
	}
	names := []string{at}
	if isPattern(at) {
		if names, err = fs.Glob(s.root.FS(), at); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
	} else if _, err := s.root.Stat(at); err != nil {
		return nil, fmt.Errorf("list %s: %w", name, bare(err))
	}
	var out []Entry
	for _, n := range names {
		if hidden(n) {
			continue
		}
		list, err := s.entries(n, recursive)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	if !s.opts.HashFiles {
		return out, nil
	}
	return out, s.hashEntries(ctx, out)
}

// bare takes the path out of an error that names it again.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (s *Service) entries(at string, recursive bool) ([]Entry, error) {
	var out []Entry
	add := func(name string, st fs.FileInfo) error {
		out = append(out, Entry{Name: name, Dir: st.IsDir(), Size: st.Size(), Modified: st.ModTime()})
		return nil
	}
	if recursive {
		err := s.walk(at, func(name string, st fs.FileInfo) error {
			if to, err := s.root.Stat(name); err == nil && to.Mode().IsRegular() {
				st = to
			}
			if !st.IsDir() {
				_ = add(name, st)
			}
			return nil
		}, nil)
		return out, err
	}
	st, err := s.look(at)
	if err != nil {
		return nil, nil //nolint:nilerr // gone
	}
	if !st.IsDir() {
		_ = add(at, st)
		return out, nil
	}
	list, err := fs.ReadDir(s.root.FS(), at)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", at, bare(err))
	}
	for _, e := range list {
		name := path.Join(at, e.Name())
		if st, err := s.look(name); err == nil && !hidden(name) {
			_ = add(name, st)
		}
	}
	return out, nil
}

// look is what a name leads to, or the link there if that leads nowhere or out.
func (s *Service) look(name string) (fs.FileInfo, error) {
	if st, err := s.root.Stat(name); err == nil {
		return st, nil
	}
	return s.root.Lstat(name)
}

func (s *Service) hashEntries(ctx context.Context, list []Entry) error {
	for i := range list {
		if list[i].Dir {
			continue
		}
		v, err := s.fileHash(ctx, list[i].Name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil { // else it is no ordinary file, or gone
			list[i].Hash = v.String()
		}
	}
	return nil
}

// fileHash is the hash of a file here.
func (s *Service) fileHash(ctx context.Context, name string) (sum, error) {
	f, id, err := openFile(s.root, name)
	if err != nil {
		return sum{}, err
	}
	defer f.Close()
	known := s.hashes.of(id)
	for i := range layoutOf(id.size).count() {
		if _, err := s.hashOf(ctx, f, id, known, i); err != nil {
			return sum{}, err
		}
	}
	list, _ := known.all()
	return rootHash(id.size, list), nil
}

// Delete removes files and directories with all in them, and ends transfers
// into them. What is not there is no error.
func (s *Service) Delete(name string) error {
	at, err := s.clean(name)
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	if at == "." {
		return fmt.Errorf("delete %s: this is the files directory itself; `*` is all that is in it", name)
	}
	s.abandon(at)
	var failed error
	for dir, of := range partials(s.root, path.Dir(at)) {
		if covers(at, of) {
			failed = errors.Join(failed, s.root.RemoveAll(dir))
		}
	}
	names := []string{at}
	if isPattern(at) {
		if names, err = fs.Glob(s.root.FS(), at); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	for _, n := range names {
		if !hidden(n) {
			failed = errors.Join(failed, s.root.RemoveAll(n))
		}
	}
	return failed
}

// abandon ends what brings something that a pattern or directory covers, and
// waits.
func (s *Service) abandon(pattern string) {
	s.mu.Lock()
	var loads []*load
	for l := range s.loads {
		if l.touches(pattern) {
			loads = append(loads, l)
		}
	}
	var list []*transfer
	for name, t := range s.transfer {
		if covers(pattern, name) {
			list = append(list, t)
		}
	}
	s.mu.Unlock()
	for _, l := range loads {
		if covers(pattern, l.name) {
			l.cancel(errDeleted)
		} else {
			l.cancel(errors.New("a part of it was deleted meanwhile")) // what has come of the rest is kept
		}
	}
	for _, t := range list {
		t.cancel(errDeleted)
	}
	for _, l := range loads {
		<-l.finished
	}
	for _, t := range list {
		<-t.finished
	}
}

// StreamChunk is the most that Stream passes on in one go, in bytes.
const StreamChunk = 10 << 20

// Stream passes the content of a file here on, piece by piece; a piece is
// valid until f returns.
func (s *Service) Stream(ctx context.Context, name string, f func([]byte) error) error {
	at, err := s.clean(name)
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, err)
	}
	file, id, err := openFile(s.root, at)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stream %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("stream %s: %w", name, bare(err))
	}
	defer file.Close()
	buf := make([]byte, min(StreamChunk, max(id.size, 1)))
	for left := id.size; left > 0 && ctx.Err() == nil; {
		n := min(left, int64(len(buf)))
		if _, err := io.ReadFull(file, buf[:n]); err != nil {
			return fmt.Errorf("stream %s: %w", name, unexpected(err))
		}
		if !unchanged(file, id) {
			return fmt.Errorf("stream %s: %w", name, ErrChanged)
		}
		if err := f(buf[:n]); err != nil {
			return err
		}
		left -= n
	}
	return context.Cause(ctx)
}

// Complete proposes names, here and at other hosts, that begin with prefix.
func (s *Service) Complete(ctx context.Context, prefix string) []string {
	dir, base := path.Split(prefix)
	if strings.ContainsAny(prefix, `*?[\`) || checkName(path.Join(dir, "x")) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second/2)
	defer cancel()
	var out []string
	add := func(files []found) {
		for _, f := range files {
			rest, ok := strings.CutPrefix(f.Name, prefix)
			if !ok {
				continue
			}
			if f.Kind == kindDir {
				rest += "/"
			}
			// Of what lies deeper, only the next directory is proposed.
			if i := strings.IndexByte(rest, '/'); i >= 0 {
				rest = rest[:i+1]
			}
			out = append(out, prefix+rest)
		}
	}
	pattern := dir + base + "*"
	if here, _, err := s.find(pattern); err == nil {
		add(here)
	}
	for _, r := range s.findAt(ctx, s.others(), findRequest{Pattern: pattern}) {
		add(r.files)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
