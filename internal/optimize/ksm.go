package optimize

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
)

// ksmValues is how KSM runs while it is on (the kernel's
// Documentation/admin-guide/mm/ksm.rst): it looks at ten times as many pages
// as it would by itself, about 50,000 in a second.
var ksmValues = map[string]string{"pages_to_scan": "1000", "sleep_millisecs": "20", "run": "1"}

// ksmFiles are the names in the order in which they are written.
var ksmFiles = []string{"pages_to_scan", "sleep_millisecs", "run"}

// KSM reports whether equal pages are merged on our behalf.
func (o *Optimizer) KSM() bool { return o.read().KSM != nil }

// SetKSM turns the merging of equal pages on, or back to how it was.
func (o *Optimizer) SetKSM(on bool) error {
	o.turn <- struct{}{}
	defer func() { <-o.turn }()
	s := o.read()
	switch {
	case on && s.KSM != nil:
		return errs.New(errs.State, "ksm is already enabled")
	case !on && s.KSM == nil:
		return errs.New(errs.State, "ksm is not enabled")
	case !on:
		if err := o.writeKSM(s.KSM); err != nil {
			return err
		}
		s.KSM = nil
		return o.write(s)
	}
	before, err := o.readKSM()
	if err != nil {
		return err
	}
	s.KSM = before
	if err := o.write(s); err != nil { // first, so that no crash loses it
		return err
	}
	if err := o.writeKSM(ksmValues); err != nil {
		s.KSM = nil
		return errors.Join(err, o.writeKSM(before), o.write(s))
	}
	return nil
}

func (o *Optimizer) readKSM() (map[string]string, error) {
	values := map[string]string{}
	for _, name := range ksmFiles {
		b, err := os.ReadFile(filepath.Join(o.opts.KSMDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errs.WithRemedy(errs.New(errs.Unsupported, "this kernel does not merge pages: %w", err), "use a kernel with CONFIG_KSM")
		}
		if err != nil {
			return nil, errs.Wrap(errs.Permission, err)
		}
		values[name] = strings.TrimSpace(string(b))
	}
	return values, nil
}

func (o *Optimizer) writeKSM(values map[string]string) error {
	for _, name := range ksmFiles {
		if err := os.WriteFile(filepath.Join(o.opts.KSMDir, name), []byte(values[name]), 0o644); err != nil {
			return errs.New(errs.Permission, "cannot set up ksm: %w", err)
		}
	}
	return nil
}
