// Package errs gives errors a kind that survives the way to the caller, and
// the facts a reader needs: which host, which VM, at which step, what to do.
package errs

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
)

// Kind says what sort of failure an error is. A Kind is itself an error, so
// errors.Is(err, errs.NotFound) works on any error that carries that kind.
type Kind string

// The kinds. An error without one is Internal.
const (
	Invalid     Kind = "invalid"     // the request can never work as written
	NotFound    Kind = "not found"   // something named does not exist
	Exists      Kind = "exists"      // something named exists already
	State       Kind = "state"       // right request, wrong moment: VM not running, file in use
	Unsupported Kind = "unsupported" // this engine, host or QEMU cannot do it
	Resource    Kind = "resource"    // disk full, out of memory, out of VLANs
	Permission  Kind = "permission"  // the system said no
	Unreachable Kind = "unreachable" // a peer, guest or process does not answer
	Internal    Kind = "internal"    // our own fault
)

// Error makes a Kind usable as the target of errors.Is.
func (k Kind) Error() string { return string(k) }

// Error is an error with the facts around it. Zero fields are unknown.
type Error struct {
	Kind   Kind
	Host   string
	VM     string
	Step   string // step of a launch or another multi-step operation
	Remedy string // what the reader can do, one sentence
	Err    error
}

// Error renders the facts in the order a reader wants them. The host is left
// out: the response that carries the error names it.
func (e *Error) Error() string {
	var b strings.Builder
	if e.VM != "" {
		fmt.Fprintf(&b, "VM %s: ", e.VM)
	}
	if e.Step != "" {
		fmt.Fprintf(&b, "%s: ", e.Step)
	}
	b.WriteString(e.Err.Error())
	if e.Remedy != "" {
		fmt.Fprintf(&b, " (%s)", e.Remedy)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is this error's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && e.Kind == k
}

// New formats an error of the given kind. %w works as in fmt.Errorf.
func New(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// Wrap gives err a kind. A nil err stays nil.
func Wrap(k Kind, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: k, Err: err}
}

// KindOf returns the kind of err, or Internal.
func KindOf(err error) Kind {
	var e *Error
	for errors.As(err, &e) {
		if e.Kind != "" {
			return e.Kind
		}
		err = e.Err
	}
	return Internal
}

// Facts are what is known of an error, for programs. All but Kind may be empty.
type Facts struct {
	Kind   Kind   `json:"kind"`
	Host   string `json:"host,omitempty"` // if not the one that answers
	VM     string `json:"vm,omitempty"`
	Step   string `json:"step,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// FactsOf returns what is known of err; of several joined errors, of the first.
func FactsOf(err error) Facts {
	f := Facts{Kind: KindOf(err)}
	var e *Error
	for errors.As(err, &e) {
		f.Host, f.VM = cmp.Or(f.Host, e.Host), cmp.Or(f.VM, e.VM)
		f.Step, f.Remedy = cmp.Or(f.Step, e.Step), cmp.Or(f.Remedy, e.Remedy)
		err = e.Err
	}
	return f
}

// InVM names the VM that err is about, unless err names one already.
func InVM(err error, vm string) error {
	return annotate(err, func(e *Error) *string { return &e.VM }, vm)
}

// AtStep names the step at which err happened, unless err names one already.
func AtStep(err error, step string) error {
	return annotate(err, func(e *Error) *string { return &e.Step }, step)
}

// WithRemedy says what the reader can do about err, unless err says so already.
func WithRemedy(err error, remedy string) error {
	return annotate(err, func(e *Error) *string { return &e.Remedy }, remedy)
}

func annotate(err error, field func(*Error) *string, value string) error {
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) || error(e) != err {
		e = &Error{Kind: KindOf(err), Err: err}
	} else {
		c := *e // errors are values: the caller's stays as it was
		e = &c
	}
	if f := field(e); *f == "" {
		*f = value
	}
	return e
}

// Join joins errors as errors.Join does; one alone stays itself, so that its
// kind is still at hand.
func Join(list ...error) error {
	var found []error
	for _, err := range list {
		if err != nil {
			found = append(found, err)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	return errors.Join(found...)
}
