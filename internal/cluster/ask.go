package cluster

import (
	"context"
	"errors"
	"fmt"

	"minimega/internal/errs"
	"minimega/pkg/meshage"
)

// Ask sends a request of the kind called name to a host, and waits for its
// answer, ctx, or the loss of the host. When ctx ends the other side's context
// does, too. progress, if not nil, is told what the server reports meanwhile,
// from the goroutine of the caller. An error names the host; one whose kind is
// errs.Unreachable leaves open what was done there.
//
// Host may be this one, if it has a mesh.
func Ask[A, P, Q any](ctx context.Context, c *Cluster, host, name string, q Q, progress func(P)) (A, error) {
	var a A
	err := c.ask(ctx, host, name, q, func(payload []byte) error {
		var p P
		if err := decode(payload, &p); err != nil {
			return err
		}
		if progress != nil {
			progress(p)
		}
		return nil
	}, &a)
	return a, OnHost(err, host)
}

func (c *Cluster) ask(ctx context.Context, host, name string, q any, progress func([]byte) error, answer any) error {
	request, err := encode(q)
	if err != nil {
		return err
	}
	mesh := c.Mesh()
	if mesh == nil {
		return errs.New(errs.Unreachable, "this daemon is in no mesh")
	}
	s, err := mesh.Open(ctx, host, protocol(name))
	if err != nil {
		return absent(ctx, err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if err := writeFrame(s, frameRequest, request); err != nil {
		return lost(ctx, err)
	}
	for {
		kind, payload, err := readFrame(s, maxAnswer)
		if err != nil {
			return lost(ctx, err)
		}
		switch kind {
		case frameProgress:
			if err := progress(payload); err != nil {
				s.Reset()
				return err
			}
		case frameAnswer:
			return decode(payload, answer)
		case frameError:
			return decodeError(payload)
		default:
			s.Reset()
			return errs.New(errs.Internal, "the answer has a part of unknown kind %d", kind)
		}
	}
}

// absent says what it means to the caller that there is no connection.
func absent(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, meshage.ErrUnknown), errors.Is(err, meshage.ErrLeft):
		return errs.WithRemedy(errs.New(errs.Unreachable, "the host is not in the mesh"), "`mesh list` shows who is; `ns del-hosts` takes it out of a namespace")
	case errors.Is(err, meshage.ErrAmbiguous):
		return errs.Wrap(errs.Unreachable, err)
	}
	return errs.New(errs.Unreachable, "the host cannot be reached: %w", err)
}

// lost says what it means to the caller that a connection broke.
func lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errTooLong):
		return errs.Wrap(errs.Internal, err)
	case errors.Is(err, meshage.ErrLeft):
		return errs.New(errs.Unreachable, "the host left the mesh before it answered")
	}
	return errs.New(errs.Unreachable, "the host was lost before it answered: %w", err)
}

// OnHost names the host that err is about, unless err names one already.
func OnHost(err error, host string) error {
	if err == nil {
		return nil
	}
	known := (*errs.Error)(nil)
	if errors.As(err, &known) && known.Host != "" {
		return err
	}
	return &errs.Error{Kind: errs.KindOf(err), Host: host, Err: err}
}

// HostOf is the host that err names, "" for none.
func HostOf(err error) string {
	known := (*errs.Error)(nil)
	for errors.As(err, &known) {
		if known.Host != "" {
			return known.Host
		}
		err = known.Err
	}
	return ""
}

func protocol(name string) string { return fmt.Sprintf("minimega/%s/1", name) }
