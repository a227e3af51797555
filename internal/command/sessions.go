package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"time"

	"minimega/internal/host"
	"minimega/internal/namespace"
	"minimega/pkg/minicli"
)

// sharedState is what a session starts with, as it is kept for a later daemon: a
// client that goes on after this one was killed goes on in the same namespace.
type sharedState struct {
	Namespace string
	Flags     minicli.Flags
	Aliases   map[string]string
	Status    time.Duration
}

// maxSharedFile bounds, in bytes, what is read of the file.
const maxSharedFile = 16 << 20

// sharedFile keeps the state of a Shared.
type sharedFile struct {
	path  string
	log   *slog.Logger
	fresh []byte        // the state of a new daemon, which needs no file
	turn  chan struct{} // held by who writes
	last  []byte        // what was written; guarded by turn
}

// Keep takes over from a file what an earlier daemon's sessions had set, and
// has what is set from now on outlive this one there. What cannot be used is an
// error, and left out.
func (s *Shared) Keep(path string, log *slog.Logger) error {
	fresh, err := s.encode()
	if err != nil {
		return err
	}
	f := &sharedFile{path: path, log: log, fresh: fresh, turn: make(chan struct{}, 1), last: fresh}
	s.file = f
	var state sharedState
	found, err := host.ReadJSON(path, maxSharedFile, &state)
	if err != nil || !found {
		return err
	}
	if err := namespace.CheckName(state.Namespace); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.mu.Lock()
	s.namespace, s.flags, s.status = state.Namespace, state.Flags, state.Status
	if state.Aliases != nil {
		s.aliases = state.Aliases
	}
	s.mu.Unlock()
	f.last, err = s.encode()
	return err
}

// ForgetShared removes the file of an earlier daemon, and returns a line if
// there was one.
func ForgetShared(path string) ([]string, error) {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []string{"namespace, flags and aliases that sessions start with"}, nil
}

func (s *Shared) encode() ([]byte, error) {
	s.mu.Lock()
	state := sharedState{s.namespace, s.flags, maps.Clone(s.aliases), s.status}
	s.mu.Unlock()
	text, err := json.MarshalIndent(state, "", "\t")
	return append(text, '\n'), err
}

// keep writes the file, if what is in it is not the present state.
func (s *Shared) keep() {
	f := s.file
	if f == nil {
		return
	}
	f.turn <- struct{}{}
	defer func() { <-f.turn }()
	text, err := s.encode()
	if err != nil || bytes.Equal(text, f.last) {
		return
	}
	if bytes.Equal(text, f.fresh) {
		_, err = ForgetShared(f.path)
	} else {
		err = host.WriteVolatile(f.path, text, 0o600)
	}
	if err != nil {
		f.log.Warn("namespace, flags and aliases will not outlive this minimega", "err", err)
		return
	}
	f.last = text
}
