package iomeshage

import (
	"context"
	"fmt"
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
	i := slices.IndexFunc(tg.complete, func(h holder) bool { return !looksLike(&h.info, tg.here) })
	if i < 0 {
		return nil
	}
	if !strict {
		s.opts.Log.Warn("file distribution: another host has a file of this name with another size or time; the one here is used",
			"file", tg.name, "host", tg.complete[i].host)
		return nil
	}
	tg.authority = holder{s.network().Name(), *tg.here}
	return s.agree(ctx, tg)
}

// looksLike compares what tells files apart without reading them: a copy made
// by us keeps the time of the original.
func looksLike(a, b *found) bool { return a.Size == b.Size && a.MTime == b.MTime }

// agree fails if a host has other content than the authority. Hosts whose
// files look alike are believed: each chunk is checked when it comes.
func (s *Service) agree(ctx context.Context, tg *target) error {
	a := tg.authority
	for _, h := range tg.complete {
		if h.info.Size != a.info.Size {
			return conflict(a, h, fmt.Sprintf("%d bytes", a.info.Size), fmt.Sprintf("%d bytes", h.info.Size))
		}
	}
	var ours []sum
	for _, h := range tg.complete {
		if looksLike(&h.info, &a.info) {
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
	return fmt.Errorf("%w: %s has %s, %s has %s; delete it on one of them", ErrConflict, a.host, isA, b.host, isB)
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
