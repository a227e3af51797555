package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	lines int
	bad   int                          // lines that were not understood
	onBad func(path string, err error) // may be nil
	onIn  func(path string, depth int) // may be nil
	dir   string                       // of the file that the last event came from
}

type scriptFile struct {
	f    *os.File
	r    *vnc.KBReader
	path string
}

func openScript(path string) (*script, error) {
	s := &script{}
	return s, s.push(path)
}

func (s *script) push(path string) error {
	if len(s.open) > maxDepth {
		return errs.WithRemedy(errs.New(errs.Invalid, "%s: more than %d kb files load each other", path, maxDepth),
			"look for a file that loads itself")
	}
	f, err := openPlain(path)
	if err != nil {
		return err
	}
	s.open = append(s.open, &scriptFile{f: f, r: vnc.NewKBReader(f), path: path})
	if s.onIn != nil {
		s.onIn(path, len(s.open)-1)
	}
	return nil
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

// next returns the next event; io.EOF after the last one. LoadFile is followed
// and returned, too: its delta counts.
func (s *script) next() (vnc.KBLine, error) {
	for len(s.open) > 0 {
		top := s.open[len(s.open)-1]
		line, err := top.r.Next()
		switch {
		case errors.Is(err, io.EOF):
			_ = top.f.Close()
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
		s.dir = filepath.Dir(top.path)
		return line, s.load(line, top.path)
	}
	return vnc.KBLine{}, io.EOF
}

func (s *script) load(line vnc.KBLine, from string) error {
	l, ok := line.Event.(vnc.LoadFile)
	if !ok {
		return nil
	}
	if err := s.push(s.resolve(l.Path)); err != nil {
		return fmt.Errorf("%s line %d: %w", from, line.Line, err)
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

func (s *script) close() {
	for _, f := range s.open {
		_ = f.f.Close()
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
	defer s.close()
	for n := 0; ; n++ {
		if n%1000 == 0 && ctx.Err() != nil {
			return 0, 0, ctx.Err()
		}
		depth = max(depth, len(s.open)-1)
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
