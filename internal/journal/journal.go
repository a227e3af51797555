// Package journal keeps a small readable file for each thing that is under
// way. It goes with the thing; when a process is killed, the files tell the
// next one what to take up again.
package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"minimega/internal/host"
)

const (
	suffix   = ".json"
	beside   = ".data"
	maxEntry = 16 << 20 // bytes
)

// Journal is a directory of entries. A nil Journal keeps nothing.
type Journal struct {
	dir string

	mu   sync.Mutex // guards next
	next int
}

// Entry is the file of one thing. A nil Entry is one of a nil Journal.
type Entry struct {
	path string
	data []byte
}

// Open returns the journal in a directory, which is made when it is needed.
func Open(dir string) *Journal { return &Journal{dir: dir} }

// Add writes an entry, JSON of v, before it returns.
func (j *Journal) Add(v any) (*Entry, error) {
	if j == nil {
		return nil, nil
	}
	data, err := encode(v)
	if err != nil {
		return nil, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for { // entries of before keep their names
		if err := os.MkdirAll(j.dir, 0o700); err != nil {
			return nil, err
		}
		path := filepath.Join(j.dir, strconv.Itoa(j.next)+suffix)
		j.next++
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		err := host.WriteFile(path, data, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the last entry has just been removed, and the directory with it
		}
		return &Entry{path: path}, err
	}
}

func encode(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "\t")
	if err == nil && len(data) >= maxEntry {
		err = fmt.Errorf("an entry of %d bytes; at most %d are kept", len(data), maxEntry)
	}
	return append(data, '\n'), err
}

// Entries returns what an earlier process left, in the order of the names.
// Files that are no entries are named in the error.
func (j *Journal) Entries() ([]*Entry, error) {
	if j == nil {
		return nil, nil
	}
	failed := []error{host.RemoveTemps(j.dir)}
	files, err := os.ReadDir(j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	failed = append(failed, err)
	var list []*Entry
	for _, f := range files {
		e := &Entry{path: filepath.Join(j.dir, f.Name())}
		if !strings.HasSuffix(f.Name(), suffix) {
			failed = append(failed, j.orphan(f.Name()))
			continue
		}
		if info, err := f.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > maxEntry {
			failed = append(failed, fmt.Errorf("%s is not an entry of a journal", e.path))
			continue
		}
		if e.data, err = os.ReadFile(e.path); err != nil {
			failed = append(failed, err)
			continue
		}
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *Entry) int { return a.number() - b.number() })
	if len(list) > 0 { // new ones come after them
		j.mu.Lock()
		j.next = max(j.next, list[len(list)-1].number()+1)
		j.mu.Unlock()
	}
	return list, errors.Join(failed...)
}

// orphan removes what was beside an entry that has gone.
func (j *Journal) orphan(name string) error {
	base, ok := strings.CutSuffix(name, beside)
	if !ok {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(j.dir, base+suffix)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(filepath.Join(j.dir, name))
}

// Drop removes every entry, as nobody will take up what they tell of, and
// returns what line makes of those that hold a T.
func Drop[T any](j *Journal, line func(T) string) (lines []string, err error) {
	entries, err := j.Entries()
	failed := []error{err}
	for _, e := range entries {
		var v T
		if e.Read(&v) == nil {
			lines = append(lines, line(v))
		}
		failed = append(failed, e.Remove())
	}
	return lines, errors.Join(failed...)
}

func (e *Entry) number() int {
	n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(e.path), suffix)) // 0 will do for others
	return n
}

// Path is the path of the entry's file; "" of no entry.
func (e *Entry) Path() string {
	if e == nil {
		return ""
	}
	return e.path
}

// Beside is the path of a file for what the thing itself wants to keep. It goes
// with the entry.
func (e *Entry) Beside() string {
	if e == nil {
		return ""
	}
	return strings.TrimSuffix(e.path, suffix) + beside
}

// Read unmarshals the entry.
func (e *Entry) Read(v any) error {
	if err := json.Unmarshal(e.data, v); err != nil {
		return fmt.Errorf("%s: %w", e.path, err)
	}
	return nil
}

// Replace writes the entry anew.
func (e *Entry) Replace(v any) error {
	if e == nil {
		return nil
	}
	data, err := encode(v)
	if err != nil {
		return err
	}
	return host.WriteFile(e.path, data, 0o600)
}

// Remove ends the entry: the thing is over.
func (e *Entry) Remove() error {
	if e == nil {
		return nil
	}
	for _, path := range []string{e.path, e.Beside()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_ = os.Remove(filepath.Dir(e.path)) // only when it was the last one
	return nil
}
