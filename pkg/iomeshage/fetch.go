package iomeshage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"minimega/pkg/meshage"
)

// errLie is what a peer is caught at that sends other bytes than it says.
var errLie = errors.New("what it sent does not have the hash that it must have")

// localError is a failure of this host, for which no peer is to blame.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// fetch brings one chunk from one peer. The stream is opened if there is none.
func (t *transfer) fetch(ctx context.Context, stream *meshage.Stream, j *job, buf []byte) error {
	trusted, want, err := t.expected(ctx, j)
	if err != nil {
		return err
	}
	if *stream == nil {
		if *stream, err = t.connect(ctx, j.peer); err != nil {
			*stream = nil
			return err
		}
	}
	w := *stream
	defer context.AfterFunc(ctx, func() { _ = w.Reset() })()
	_ = w.SetDeadline(time.Now().Add(idle))
	if err := writeRequest(w, chunkRequest{t.name, j.version, j.chunk}); err != nil {
		return err
	}
	off, n := t.layout.at(j.chunk)
	in := intake{ctx: ctx, t: t, stream: w, off: off}
	if j.second {
		in.memory = make([]byte, 0, n)
	}
	claimed, got, err := readChunk(w, n, buf, &in)
	if err == nil {
		err = in.flush()
	}
	if err != nil {
		return err
	}
	switch {
	case got != claimed, trusted && want != (sum{}) && claimed != want:
		return errLie
	case !trusted && claimed != want:
		return fmt.Errorf("%w: %s has %s, %s has %s", ErrConflict, j.peer.host, claimed, t.authority, want)
	}
	return t.accept(j, got, in.memory, off)
}

// connect opens a connection to a peer: a direct one, or, where that fails, a
// stream of the mesh, now and from then on.
func (t *transfer) connect(ctx context.Context, p *peer) (meshage.Stream, error) {
	t.mu.Lock()
	direct := !p.indirect
	t.mu.Unlock()
	if direct {
		c, err := t.s.direct(ctx, p.host)
		if err == nil || ctx.Err() != nil || errors.Is(err, meshage.ErrLeft) || errors.Is(err, meshage.ErrUnknown) {
			return c, err
		}
		t.s.opts.Log.Debug("file distribution: chunks go over the mesh", "host", p.host, "err", err)
		t.mu.Lock()
		p.indirect = true
		t.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return t.s.network().Open(ctx, p.host, chunkProtocol)
}

// expected returns the hash that a chunk must have. It is zero where the peer
// is the one that says.
func (t *transfer) expected(ctx context.Context, j *job) (trusted bool, want sum, err error) {
	t.mu.Lock()
	trusted = j.peer.host == t.authority
	want, known := t.known.get(j.chunk)
	a := t.authorityLocked()
	t.mu.Unlock()
	if known || trusted {
		return trusted, want, nil
	}
	if a == nil {
		return false, want, refuse(codeBusy, "nobody vouches for the file just now")
	}
	ctx, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	err = t.s.fetchHashes(ctx, a.host, t.name, a.info.Version, t.layout.count(), j.chunk, 1, func(_ int, v sum) { want = v })
	if refused(err) == codeChanged {
		return false, want, &localError{t.wordy(a.host, err)}
	}
	if err != nil {
		return false, want, refuse(codeBusy, "%s does not say what the chunk must be: %v", a.host, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if j.reign != t.reign {
		return false, want, refuse(codeBusy, "another host vouches for the file now")
	}
	t.known.set(j.chunk, want)
	return false, want, nil
}

// accept records a chunk that is what it must be. One that a second source
// has sent is only now written, after the first has stopped.
func (t *transfer) accept(j *job, v sum, memory []byte, off int64) error {
	t.mu.Lock()
	if j.lost {
		t.mu.Unlock()
		return nil
	}
	if j.reign == t.reign { // else settle gives the chunk back
		t.known.set(j.chunk, v)
	}
	if j.second {
		first := t.jobs[j.chunk]
		if first == nil {
			j.lost = true // it has come, or was given up
			t.mu.Unlock()
			return nil
		}
		first.lost = true
		first.cancel()
		t.mu.Unlock()
		<-first.ended
		if err := t.part.replace(memory, off); err != nil {
			t.mu.Lock()
			t.plan.giveBack(j.chunk)
			t.mu.Unlock()
			return &localError{err}
		}
		return local(t.part.done(j.chunk, v))
	}
	t.mu.Unlock()
	return local(t.part.done(j.chunk, v))
}

func local(err error) error {
	if err == nil {
		return nil
	}
	return &localError{err}
}

// intake puts the blocks of a chunk in their place, or into memory.
type intake struct {
	ctx    context.Context
	t      *transfer
	stream meshage.Stream
	off    int64
	zeros  int64 // holes not made yet
	memory []byte
}

func (in *intake) data(b []byte) error {
	if err := in.flush(); err != nil {
		return err
	}
	if err := in.t.s.in.pass(in.ctx, len(b)); err != nil {
		return err
	}
	_ = in.stream.SetDeadline(time.Now().Add(idle))
	if in.memory != nil {
		in.memory = append(in.memory, b...)
		return nil
	}
	err := in.t.part.write(b, in.off)
	in.off += int64(len(b))
	return local(err)
}

func (in *intake) zero(n int64) error {
	_ = in.stream.SetDeadline(time.Now().Add(idle))
	if in.memory != nil {
		in.memory = append(in.memory, make([]byte, n)...)
		return nil
	}
	in.zeros += n
	return nil
}

func (in *intake) flush() error {
	if in.zeros == 0 {
		return nil
	}
	err := in.t.part.zero(in.off, in.zeros)
	in.off += in.zeros
	in.zeros = 0
	return local(err)
}
