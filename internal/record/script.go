package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/pkg/vnc"
)

// Limits on kb files.
const (
	warnDepth = 10       // files within files that are worth a warning
	maxDepth  = 100      // and that are refused
	maxLines  = 50 << 20 // events of a playback, with all its files
)

// script reads a kb file and the files that it loads as one list of events.
type script struct {
	open  []*scriptFile // innermost last
	load  *vnc.KBLine   // a LoadFile that was returned and has to be followed
	own   int           // how many of open stood before anything was put in between; 0: nothing was
	lines int
	bad   int                          // lines that were not understood
	onBad func(path string, err error) // may be nil
	from  string                       // the file that the last event came from
	dir   string                       // its directory
}

// scriptFile is a file that is being read, or events that were put in between.
type scriptFile struct {
	f     *os.File // nil for events
	r     *vnc.KBReader
	lines []vnc.KBLine
	path  string
}

// next returns the next event of this file alone, and closes it after the last.
func (f *scriptFile) next() (vnc.KBLine, error) {
	if f.f == nil {
		if len(f.lines) == 0 {
			return vnc.KBLine{}, io.EOF
		}
		line := f.lines[0]
		f.lines = f.lines[1:]
		return line, nil
	}
	line, err := f.r.Next()
	if errors.Is(err, io.EOF) {
		_ = f.f.Close()
	}
	return line, err
}

func openScript(path string) (*script, error) {
	s := &script{}
	return s, s.push(path)
}

func (s *script) push(path string) error {
	if s.depth() > maxDepth {
		return errs.WithRemedy(errs.New(errs.Invalid, "%s: more than %d kb files load each other", path, maxDepth),
			"look for a file that loads itself")
	}
	f, err := openPlain(path)
	if err != nil {
		return err
	}
	s.open = append(s.open, &scriptFile{f: f, r: vnc.NewKBReader(f), path: path})
	return nil
}

// depth is how many files are open.
func (s *script) depth() (n int) {
	for _, f := range s.open {
		if f.f != nil {
			n++
		}
	}
	return n
}

// openPlain opens a file for reading and refuses what is not a plain file.
func openPlain(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, errs.New(errs.NotFound, "cannot read %s: there is no such file", path)
	case err != nil:
		return nil, errs.New(errs.Invalid, "cannot read: %w", err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, errs.New(errs.Invalid, "cannot read %s: it is not a plain file", path)
	}
	return f, nil
}

// next returns the next event; io.EOF after the last one. LoadFile is returned
// before it is followed: its delta counts.
func (s *script) next() (vnc.KBLine, error) {
	if err := s.follow(); err != nil {
		return vnc.KBLine{}, err
	}
	for len(s.open) > 0 {
		if len(s.open) <= s.own {
			s.own = 0
		}
		top := s.open[len(s.open)-1]
		line, err := top.next()
		switch {
		case errors.Is(err, io.EOF):
			s.open = s.open[:len(s.open)-1]
			continue
		case errors.Is(err, vnc.ErrKBLine):
			s.bad++
			if s.onBad != nil {
				s.onBad(top.path, err)
			}
			continue
		case err != nil:
			return line, errs.New(errs.Invalid, "%s: %w", top.path, err)
		}
		if s.lines++; s.lines > maxLines {
			return line, errs.New(errs.Invalid, "%s: more than %d events", top.path, maxLines)
		}
		s.from, s.dir = top.path, filepath.Dir(top.path)
		if _, ok := line.Event.(vnc.LoadFile); ok {
			s.load = &line
		}
		return line, nil
	}
	return vnc.KBLine{}, io.EOF
}

// follow opens the file of a LoadFile.
func (s *script) follow() error {
	if s.load == nil {
		return nil
	}
	line := s.load
	s.load = nil
	if err := s.push(s.resolve(line.Event.(vnc.LoadFile).Path)); err != nil {
		if line.Line == 0 {
			return err // it is from no file
		}
		return fmt.Errorf("%s line %d: %w", s.from, line.Line, err)
	}
	return nil
}

// resolve finds a path that the last event named.
func (s *script) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(s.dir, path)
}

// between tells whether the event that was returned last had been put in between.
func (s *script) between() bool { return s.own > 0 && len(s.open) > s.own }

// putBack makes what insert puts in come next, and after that lines, which
// hold the event that was returned last or nothing.
func (s *script) putBack(lines ...vnc.KBLine) {
	s.load = nil
	s.open = append(s.open, &scriptFile{lines: lines, path: s.from})
	s.own = len(s.open)
}

// insert puts an event in between, after those that were put in before; path
// names the directory from which paths in it count. putBack comes first,
// unless between.
func (s *script) insert(line vnc.KBLine, path string) {
	s.open = slices.Insert(s.open, s.own, &scriptFile{lines: []vnc.KBLine{line}, path: path})
}

func (s *script) close() {
	for _, f := range s.open {
		if f.f != nil {
			_ = f.f.Close()
		}
	}
	s.open = nil
}

// survey reads a script to its end, to know before the first key whether it
// can be played, and how long that takes. Waiting for pictures is not counted.
func survey(ctx context.Context, path string) (total time.Duration, depth int, err error) {
	s, err := openScript(path)
	if err != nil {
		return 0, 0, err
	}
	return s.survey(ctx, path)
}

// survey reads s to its end and closes it; path names it in errors.
func (s *script) survey(ctx context.Context, path string) (total time.Duration, depth int, err error) {
	defer s.close()
	for n := 0; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		depth = max(depth, s.depth()-1)
		line, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = checkImage(s, line.Event)
		}
		if err != nil {
			return 0, 0, err
		}
		if total += line.Delta; total < 0 {
			return 0, 0, errs.New(errs.Invalid, "%s lasts longer than can be counted", path)
		}
	}
	if s.lines == 0 && s.bad > 0 {
		return 0, 0, errs.WithRemedy(errs.New(errs.Invalid, "%s holds no event that can be played", path), "give a file made by vnc record kb")
	}
	return total, depth, nil
}

// checkImage looks for the picture of an event that needs one.
func checkImage(s *script, e vnc.KBEvent) error {
	var err error
	switch e := e.(type) {
	case vnc.WaitForIt:
		_, err = loadTemplate(s.resolve, e.Image)
	case vnc.ClickIt:
		_, err = loadTemplate(s.resolve, e.Image)
	}
	return err
}
