package iomeshage

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"

	"minimega/pkg/iomeshage/internal/blake3"
)

// decide finds the authority of a file: the head node if it has it, else one
// that all hosts choose alike.
func (s *Service) decide(ctx context.Context, tg *target, strict bool) error {
	if tg.here != nil {
		return s.compareHere(ctx, tg, strict)
	}
	slices.SortFunc(tg.complete, func(a, b holder) int { return strings.Compare(lot(tg.name, a.host), lot(tg.name, b.host)) })
	head := slices.IndexFunc(tg.complete, func(h holder) bool { return h.host == s.headNode() })
	if head >= 0 {
		tg.authority = tg.complete[head]
		return nil
	}
	tg.authority = tg.complete[0]
	return s.agree(ctx, tg)
}

// lot spreads the files over the hosts.
func lot(name, host string) string {
	v := blake3.Sum([]byte(name + "\x00" + host))
	return string(v[:])
}

// compareHere looks whether what is here is what others have.
func (s *Service) compareHere(ctx context.Context, tg *target, strict bool) error {
	i := slices.IndexFunc(tg.complete, func(h holder) bool { return !h.info.same(tg.here) })
	if i < 0 {
		return nil
	}
	if !strict {
		s.opts.Log.Warn("file distribution: another host has something else of this name, or a file with another size or time; what is here is used",
			"file", tg.name, "host", tg.complete[i].host)
		return nil
	}
	tg.authority = holder{s.network().Name(), *tg.here}
	return s.agree(ctx, tg)
}

// agree fails if a host has other content than the authority. Hosts whose
// files look alike are believed: each chunk is checked when it comes.
func (s *Service) agree(ctx context.Context, tg *target) error {
	a := tg.authority
	for _, h := range tg.complete {
		if h.info.Kind != a.info.Kind || h.info.Size != a.info.Size || !bytes.Equal(h.info.Target, a.info.Target) {
			return conflict(a, h, a.info.what(), h.info.what())
		}
	}
	var ours []sum
	for _, h := range tg.complete {
		if h.info.same(&a.info) {
			continue
		}
		var err error
		if ours == nil {
			if ours, err = s.allHashes(ctx, a); err != nil {
				return err
			}
		}
		theirs, err := s.allHashes(ctx, h)
		if err != nil {
			return err
		}
		if !slices.Equal(ours, theirs) {
			return conflict(a, h, rootHash(a.info.Size, ours).String(), rootHash(h.info.Size, theirs).String())
		}
	}
	return nil
}

func conflict(a, b holder, isA, isB string) error {
	return fmt.Errorf("%w: %s has %s, %s has %s", ErrConflict, a.host, isA, b.host, isB)
}

// allHashes returns the hashes of a file at a host, or here.
func (s *Service) allHashes(ctx context.Context, h holder) ([]sum, error) {
	n := layoutOf(h.info.Size).count()
	list := make([]sum, n)
	for from := 0; from < n; from += hashBatch {
		count := min(hashBatch, n-from)
		set := func(i int, v sum) { list[i] = v }
		var err error
		if h.host == s.network().Name() {
			err = s.hashesHere(ctx, h.info, from, count, set)
		} else {
			err = s.fetchHashes(ctx, h.host, h.info.Name, h.info.Version, n, from, count, set)
		}
		if refused(err) == codeChanged {
			return nil, fmt.Errorf("%w: on %s", ErrChanged, h.host)
		}
		if err != nil {
			return nil, fmt.Errorf("hashes of %s: %w", h.host, err)
		}
	}
	return list, nil
}

func (s *Service) hashesHere(ctx context.Context, info found, from, count int, set func(int, sum)) error {
	f, id, err := s.version(info.Name, info.Version)
	if err != nil {
		return err
	}
	defer f.Close()
	known := s.hashes.of(id)
	for i := from; i < from+count; i++ {
		v, err := s.hashOf(ctx, f, id, known, i)
		if err != nil {
			return err
		}
		set(i, v)
	}
	return nil
}

// nested refuses a list in which something lies below what is no directory: no
// disk holds that, and to make it would lead through a link.
func (s *Service) nested(list []*target) error {
	flat := map[string]holder{}
	of := func(tg *target) holder {
		if tg.here != nil {
			return holder{s.network().Name(), *tg.here}
		}
		return tg.authority
	}
	for _, tg := range list {
		if h := of(tg); h.info.Kind != kindDir {
			flat[tg.name] = h
		}
	}
	for _, tg := range list {
		for at := path.Dir(tg.name); at != "."; at = path.Dir(at) {
			if up, ok := flat[at]; ok {
				return fmt.Errorf("get %s: %w: %s has %s, %s has %s below it", at, ErrConflict, up.host, up.info.what(), of(tg).host, tg.name)
			}
		}
	}
	return nil
}
