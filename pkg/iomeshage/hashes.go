package iomeshage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

func (s *Service) answerHashes(ctx context.Context, request []byte) (any, error) {
	var q hashRequest
	if err := json.Unmarshal(request, &q); err != nil || checkName(q.Name) != nil || q.From < 0 || q.Count < 0 || q.Since < 0 {
		return nil, refuse(codeBad, "no request")
	}
	f, id, err := s.version(q.Name, q.Version)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	known := s.hashes.of(id)
	if q.Count == 0 {
		return packed(known.since(q.Since)), nil
	}
	if n := layoutOf(id.size).count(); q.Count > hashBatch || q.From > n-q.Count {
		return nil, refuse(codeBad, "no such chunks")
	}
	return s.computed(ctx, f, id, known, q)
}

func (s *Service) computed(ctx context.Context, f *os.File, id identity, known *sums, q hashRequest) (any, error) {
	var chunks []int
	var list []sum
	for i := q.From; i < q.From+q.Count; i++ {
		v, err := s.hashOf(ctx, f, id, known, i)
		if err != nil {
			return nil, err
		}
		chunks, list = append(chunks, i), append(list, v)
	}
	return packed(chunks, list), nil
}

// hashOf returns the hash of a chunk, and reads it if nobody has yet. Of those
// who ask for a file at the same time one reads.
func (s *Service) hashOf(ctx context.Context, f *os.File, id identity, known *sums, i int) (sum, error) {
	if v, ok := known.get(i); ok {
		return v, nil
	}
	select {
	case known.turn <- struct{}{}:
		defer func() { <-known.turn }()
	case <-ctx.Done():
		return sum{}, ctx.Err()
	}
	if v, ok := known.get(i); ok {
		return v, nil
	}
	v, err := hashChunk(ctx, f, layoutOf(id.size), i)
	if err != nil {
		return v, err
	}
	if !unchanged(f, id) {
		return v, refuse(codeChanged, "%s has changed", path.Base(f.Name()))
	}
	known.set(i, v)
	return v, nil
}

func packed(chunks []int, list []sum) hashReply {
	r := hashReply{Chunks: chunks, Sums: make([]byte, 0, len(list)*len(sum{}))}
	for i := range list {
		r.Sums = append(r.Sums, list[i][:]...)
	}
	return r
}

// each calls f for the hashes in an answer about a file of n chunks.
func (r *hashReply) each(n int, f func(int, sum)) error {
	if len(r.Sums) != len(r.Chunks)*len(sum{}) || len(r.Chunks) > n {
		return errGarbage
	}
	for k, i := range r.Chunks {
		if i < 0 || i >= n {
			return errGarbage
		}
		f(i, sum(r.Sums[k*len(sum{}):]))
	}
	return nil
}

// hashChunk reads a chunk for its hash.
func hashChunk(ctx context.Context, f *os.File, l layout, i int) (sum, error) {
	h := &chunkHash{}
	buf := make([]byte, blockSize)
	err := readBlocks(ctx, f, l, i, buf, func(b []byte, _ int64) error {
		if b == nil {
			h.zero()
		} else {
			h.block(b)
		}
		return nil
	})
	return h.sum(), err
}

// readBlocks calls do for each block of a chunk, with nil for one that is all
// zero. Holes are not read, but for a block after one with data: to ask where
// they are takes a lock for which those wait who write to the file.
func readBlocks(ctx context.Context, f *os.File, l layout, i int, buf []byte, do func(block []byte, n int64) error) error {
	off, n := l.at(i)
	data := int64(-1) // where the next data begins, -1 for not asked yet
	for end := off + n; off < end; off += blockSize {
		if err := ctx.Err(); err != nil {
			return err
		}
		size := min(blockSize, end-off)
		if data < off {
			data = nextData(f, off, l.size)
		}
		if data >= off+size {
			if err := do(nil, size); err != nil {
				return err
			}
			continue
		}
		b := buf[:size]
		if _, err := f.ReadAt(b, off); err != nil {
			return fmt.Errorf("read %s: %w", path.Base(f.Name()), unexpected(err))
		}
		data = off + size
		if isZero(b) {
			b, data = nil, -1
		}
		if err := do(b, size); err != nil {
			return err
		}
	}
	return nil
}

// nextData is where the data at or after off begins, the end of the file for
// nowhere, off itself where the file system does not know.
func nextData(f *os.File, off, size int64) int64 {
	at, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size
	case err != nil || at < off:
		return off
	}
	return at
}
