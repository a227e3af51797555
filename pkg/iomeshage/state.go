package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"minimega/pkg/iomeshage/internal/blake3"
)

// State is what a host has at a name, as far as it can be told without reading
// a file. Equal ones are taken for the same content, see found.same.
type State struct {
	Kind  string `json:",omitempty"`
	Size  int64  `json:",omitempty"`
	MTime int64  `json:",omitempty"` // ns since 1970
	Tree  []byte `json:",omitempty"` // hash of the states of all in a directory
	// Version changes with any write there, and is another one on each host.
	Version string `json:",omitempty"`
}

func (a *State) equal(b *State) bool {
	return a.Kind == b.Kind && a.Size == b.Size && a.MTime == b.MTime && slices.Equal(a.Tree, b.Tree)
}

// State tells what is here at a name. It is false for nothing, and for what is
// not sent to other hosts.
func (s *Service) State(name string) (State, bool) {
	at, err := s.clean(name)
	if err != nil {
		return State{}, false
	}
	list, err := s.below(at)
	if err != nil || len(list) == 0 {
		return State{}, false
	}
	if f := list[0]; f.Name == at && f.Kind == kindFile {
		return State{Size: f.Size, MTime: f.MTime, Version: f.Version}, true
	}
	var all, versions []byte
	for _, f := range list {
		all = fmt.Appendf(all, "%q %s %d %d %q\n", strings.TrimPrefix(f.Name, at), f.Kind, f.Size, f.MTime, f.Target)
		versions = append(versions, f.Version...)
	}
	tree, version := sum(blake3.Sum(all)), sum(blake3.Sum(append(versions, all...)))
	return State{Kind: kindDir, Tree: tree[:], Version: version.String()}, true
}

// below lists a file, or a directory and all in it. No name is a pattern here.
func (s *Service) below(at string) (list []found, err error) {
	err = s.walk(at, func(name string, st fs.FileInfo) error {
		if len(list) >= maxListed {
			return fmt.Errorf("%s: more than %d files", at, maxListed)
		}
		if f, ok := s.foundAt(name, st); ok {
			list = append(list, f)
		}
		return nil
	}, nil)
	return list, err
}

// Stack returns the names of a file or directory at an absolute path and of
// what it stands on, as the backing files of an image, as far as they lie in
// the files directory.
func (s *Service) Stack(path string) (names []string) {
	for queue := []string{path}; len(queue) > 0 && len(names) < maxBacking; queue = queue[1:] {
		rel, err := filepath.Rel(s.opts.Root, queue[0])
		if err != nil || !filepath.IsLocal(rel) || rel == "." || slices.Contains(names, rel) {
			continue
		}
		names = append(names, rel)
		if st, err := s.root.Stat(rel); err != nil || !st.Mode().IsRegular() || s.opts.Backing == nil {
			continue
		}
		if list, err := s.opts.Backing(queue[0]); err == nil {
			queue = append(queue, list...)
		}
	}
	return names
}

// agreement is that two hosts have the same content in these versions.
type agreement struct{ name, host, ours, theirs string }

// maxAgreements bounds those that are remembered.
const maxAgreements = 4096

// Compare fails with ErrConflict if what is here at a name is other than what
// another host has, whose State is theirs. Files of one size are only read
// where their times differ, on both hosts, once as long as they do not change.
// Another error leaves open whether they are the same. What is not here differs
// from nothing.
func (s *Service) Compare(ctx context.Context, name, host string, theirs State) error {
	mesh := s.network()
	at, err := s.clean(name)
	if err != nil || mesh == nil {
		return err
	}
	ours, ok := s.State(at)
	if !ok || ours.equal(&theirs) {
		return nil
	}
	known := agreement{at, host, ours.Version, theirs.Version}
	s.mu.Lock()
	same := s.agreed[known]
	s.mu.Unlock()
	if same {
		return nil
	}
	if ours.Kind != theirs.Kind || ours.Size != theirs.Size {
		a, b := found{Kind: ours.Kind, Size: ours.Size}, found{Kind: theirs.Kind, Size: theirs.Size}
		return fmt.Errorf("%s: %w", at, conflict(holder{mesh.Name(), a}, holder{host, b}, a.what(), b.what()))
	}
	if err := s.compareAll(ctx, at, mesh.Name(), host); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.agreed) >= maxAgreements {
		clear(s.agreed)
	}
	s.agreed[known] = true
	return nil
}

// compareAll asks a host for all that it has at a name, and compares that with
// what is here.
func (s *Service) compareAll(ctx context.Context, at, here, host string) error {
	ours, err := s.below(at)
	if err != nil {
		return err
	}
	theirs, err := s.listAt(ctx, at, host)
	if err != nil {
		return fmt.Errorf("%s: %s: %w", at, host, err)
	}
	other := map[string]*found{}
	for i := range theirs {
		other[theirs[i].Name] = &theirs[i]
	}
	lacks := func(name, has, not string) error {
		return fmt.Errorf("%s: %w: %s has %s, which %s has not", at, ErrConflict, has, name, not)
	}
	for i := range ours {
		f := other[ours[i].Name]
		if f == nil {
			return lacks(ours[i].Name, here, host)
		}
		delete(other, f.Name)
		tg := &target{name: f.Name, here: &ours[i], complete: []holder{{host, *f}}, authority: holder{here, ours[i]}}
		if err := s.agree(ctx, tg); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	for name := range other {
		return lacks(name, host, here)
	}
	return nil
}

// listAt asks one host for what it has at a name.
func (s *Service) listAt(ctx context.Context, at, host string) (list []found, err error) {
	ctx, cancel := context.WithTimeout(ctx, findTimeout)
	defer cancel()
	for _, r := range s.findAt(ctx, []string{host}, findRequest{Pattern: at}) {
		if r.err != nil {
			return nil, r.err
		}
		list = append(list, r.files...)
	}
	list = slices.DeleteFunc(list, func(f found) bool { return f.Partial || !covers(at, f.Name) })
	if len(list) == 0 {
		return nil, errors.New("it is not there any more")
	}
	return list, nil
}
