package prompt

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// keepLines is how many lines a history keeps, keepBytes how much of a file
// is looked at for them.
const (
	keepLines = 1000
	keepBytes = 4 << 20
)

// History is what was typed at a prompt before, in a file if it shall last. A
// nil History is empty and keeps nothing.
type History struct {
	path  string
	log   *slog.Logger
	lines []string
}

// NewHistory is a history of the given lines, which is kept nowhere.
func NewHistory(lines []string) *History { return &History{lines: lines} }

// OpenHistory reads the history in a file, made when first written to. Trouble
// with the file is logged and costs only the history.
func OpenHistory(path string, log *slog.Logger) *History {
	h := &History{path: path, log: log}
	if err := h.load(); err != nil {
		log.Warn("no history at the prompt", "err", err)
	}
	return h
}

// load reads the file, and shortens it when it has grown.
func (h *History) load() error {
	data, err := os.ReadFile(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(data) > keepBytes {
		data = data[len(data)-keepBytes:]
	}
	all := strings.Split(string(bytes.ToValidUTF8(data, []byte("?"))), "\n")
	all = slices.DeleteFunc(all, func(l string) bool { return strings.TrimSpace(l) == "" })
	if len(all) <= 2*keepLines {
		h.lines = all
		return nil
	}
	h.lines = all[len(all)-keepLines:]
	return h.rewrite()
}

func (h *History) rewrite() error {
	tmp := h.path + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(h.lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, h.path)
}

// Lines returns the lines, oldest first.
func (h *History) Lines() []string {
	if h == nil {
		return nil
	}
	return slices.Clone(h.lines[max(0, len(h.lines)-keepLines):])
}

// Add appends a line, to the file at once: a daemon may be killed any time.
func (h *History) Add(text string) {
	if h == nil || h.path == "" {
		return
	}
	f, err := os.OpenFile(h.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		h.log.Warn("line not kept in the prompt's history", "err", err)
	}
}
