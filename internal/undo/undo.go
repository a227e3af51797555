// Package undo runs work as named steps, each with its way back, so that a
// failure in the middle leaves nothing behind.
package undo

import (
	"context"
	"errors"
	"fmt"

	"minimega/internal/errs"
)

// Step is one named piece of work. Undo may be nil; it is called only after
// Do succeeded, and must work after the context of Do has ended.
type Step struct {
	Name string
	Do   func(context.Context) error
	Undo func() error
}

// Stack holds the ways back of the steps done so far. The zero value is ready.
// It belongs to one goroutine.
type Stack struct {
	steps []Step
}

// Push adds a way back.
func (s *Stack) Push(name string, undo func() error) {
	s.steps = append(s.steps, Step{Name: name, Undo: undo})
}

// Unwind goes back, last step first, and tries every step even if one fails.
// It returns what failed, or nil. The stack is empty afterwards.
func (s *Stack) Unwind() error {
	var failed []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		if s.steps[i].Undo == nil {
			continue
		}
		if err := s.steps[i].Undo(); err != nil {
			failed = append(failed, fmt.Errorf("undo %s: %w", s.steps[i].Name, err))
		}
	}
	s.steps = nil
	return errors.Join(failed...)
}

// Run does the steps in order. When one fails, or ctx ends between two, it
// unwinds those done and returns the error, which names the step; failures of
// the way back are joined to it.
func Run(ctx context.Context, steps ...Step) error {
	var done Stack
	for _, s := range steps {
		err := ctx.Err()
		if err == nil {
			err = s.Do(ctx)
		}
		if err != nil {
			err = errs.AtStep(err, s.Name)
			if back := done.Unwind(); back != nil {
				return errors.Join(err, back)
			}
			return err
		}
		done.Push(s.Name, s.Undo)
	}
	return nil
}
