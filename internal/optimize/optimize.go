// Package optimize tunes the host for many VMs: it merges equal memory pages
// (KSM), gives VMs memory from huge pages, and pins them to processors. All of
// it is taken back by Close. What was before is written down, so that a daemon
// that follows one that was killed goes on, and can take it back too.
package optimize

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// stateName is the file in the base directory.
const stateName = "optimize"

// Options is what an Optimizer is made of.
type Options struct {
	Base   string // base directory
	KSMDir string // "" for that of this host
	Log    *slog.Logger
}

// Optimizer owns what is tuned. Its methods may be called by any goroutine.
type Optimizer struct {
	opts Options
	turn chan struct{} // holds one token: who has it may change something

	mu     sync.Mutex // guards the fields below
	state  state
	pinned map[int]*pin // by process
}

// state is what a later daemon must know.
type state struct {
	KSM       map[string]string `json:",omitempty"` // files of KSM as they were before, nil while it is off
	Hugepages string            `json:",omitempty"`
	Affinity  bool              `json:",omitempty"`
	Filter    []int             `json:",omitempty"` // processors to use, nil for all
}

// Open goes on with what an earlier daemon left in the base directory.
func Open(opts Options) (*Optimizer, error) {
	if opts.KSMDir == "" {
		opts.KSMDir = "/sys/kernel/mm/ksm"
	}
	o := &Optimizer{opts: opts, turn: make(chan struct{}, 1), pinned: map[int]*pin{}}
	b, err := os.ReadFile(o.file())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return o, nil
	case err != nil:
		return nil, err
	}
	if err := json.Unmarshal(b, &o.state); err != nil {
		opts.Log.Warn("optimizations of an earlier daemon are unknown", "file", o.file(), "err", err)
		o.state = state{}
	}
	return o, nil
}

func (o *Optimizer) file() string { return filepath.Join(o.opts.Base, stateName) }

// read returns the present state, whose map and list must not be changed.
func (o *Optimizer) read() state { o.mu.Lock(); defer o.mu.Unlock(); return o.state }

// write makes s the state, on disk first.
func (o *Optimizer) write(s state) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if string(b) == "{}" {
		if err = os.Remove(o.file()); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		err = host.WriteFile(o.file(), b, 0o600)
	}
	if err != nil {
		return errs.New(errs.Internal, "cannot write down what is optimized: %w", err)
	}
	o.mu.Lock()
	o.state = s
	o.mu.Unlock()
	return nil
}

// Clear takes everything back.
func (o *Optimizer) Clear() error {
	var ksm error
	if o.KSM() {
		ksm = o.SetKSM(false)
	}
	return errs.Join(ksm, o.SetHugepages(""), o.SetAffinity(false), o.SetFilter(nil))
}

// Discard takes back what an earlier daemon had tuned, and returns a line for each.
func (o *Optimizer) Discard() ([]string, error) {
	s := o.read()
	var lines []string
	if s.KSM != nil {
		lines = append(lines, "merging of equal memory pages (KSM)")
	}
	if s.Hugepages != "" {
		lines = append(lines, "huge pages from "+s.Hugepages)
	}
	if s.Affinity {
		lines = append(lines, "affinity of VMs to processors")
	}
	if s.Filter != nil {
		lines = append(lines, fmt.Sprintf("filter of processors %v", s.Filter))
	}
	return lines, o.Clear()
}

// Close takes everything back.
func (o *Optimizer) Close() error { return o.Clear() }
