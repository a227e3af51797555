package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"minimega/internal/errs"
	"minimega/pkg/meshage"
)

// ErrCallerGone is the cause of a context that ended because the host that
// asked gave up or was lost.
var ErrCallerGone = errors.New("the host that asked has gone away")

// requestTimeout bounds how long a peer may take to send its request.
const requestTimeout = 10 * time.Second

// Serve says who answers requests of the kind called name. f may report
// progress until it returns. It is called before the mesh is joined, or at
// least before requests are expected.
func Serve[Q, P, A any](c *Cluster, name string, f func(ctx context.Context, from string, q Q, progress func(P)) (A, error)) {
	c.handle(name, func(ctx context.Context, from string, s meshage.Stream) {
		answer, err := serve(ctx, from, s, f)
		if err == nil {
			var payload []byte
			if payload, err = encode(answer); err == nil {
				if err = writeFrame(s, frameAnswer, payload); !errors.Is(err, errTooLong) {
					return // nobody to tell of another error: the caller has gone
				}
			}
		}
		if ctx.Err() != nil && errors.Is(err, context.Canceled) { // by nobody else: this host ends
			err = errs.New(errs.Unreachable, "the host ended before it answered")
		}
		_ = writeFrame(s, frameError, encodeError(err))
	})
}

func (c *Cluster) handle(name string, h meshage.Handler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serving[name] = h
	if c.mesh != nil {
		c.mesh.Handle(protocol(name), h)
	}
}

func serve[Q, P, A any](ctx context.Context, from string, s meshage.Stream, f func(context.Context, string, Q, func(P)) (A, error)) (answer A, err error) {
	var q Q
	_ = s.SetDeadline(time.Now().Add(requestTimeout))
	kind, payload, err := readFrame(s, maxRequest)
	if err != nil || kind != frameRequest {
		return answer, errs.New(errs.Invalid, "no request: %w", err)
	}
	if err := decode(payload, &q); err != nil {
		return answer, err
	}
	_ = s.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watched := make(chan struct{})
	go func() { // until the caller closes its end, or ours is closed below
		defer close(watched)
		_, _ = io.Copy(io.Discard, s)
		cancel(ErrCallerGone)
	}()
	defer func() {
		_ = s.SetDeadline(time.Unix(1, 0)) // ends the watcher, not what is written next
		<-watched
		_ = s.SetDeadline(time.Now().Add(answerTimeout))
	}()
	defer func() {
		if p := recover(); p != nil {
			err = errs.New(errs.Internal, "the request failed inside minimega (%v): %s", p, firstLines(debug.Stack()))
		}
	}()
	return f(ctx, from, q, func(p P) {
		if payload, err := encode(p); err == nil && writeFrame(s, frameProgress, payload) != nil {
			cancel(ErrCallerGone)
		}
	})
}

// answerTimeout bounds how long a caller may take to read its answer.
const answerTimeout = 2 * time.Minute

func firstLines(stack []byte) string {
	return fmt.Sprintf("%.2000s", stack)
}
