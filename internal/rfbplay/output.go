package rfbplay

import (
	"errors"
	"os"
	"path/filepath"

	"minimega/internal/errs"
)

// output is a file that gets its name once it is complete.
type output struct {
	*os.File
	path string
}

// newOutput makes a nameless neighbour of path, with its extension.
func newOutput(path string) (*output, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".rfbplay-*"+filepath.Ext(path))
	if err != nil {
		return nil, errs.New(errs.Invalid, "cannot make %s: %w", path, plainError(err))
	}
	return &output{f, path}, nil
}

// commit gives the file its name.
func (o *output) commit() error {
	err := o.Chmod(0o644)
	if err = errors.Join(err, o.Close()); err == nil {
		err = os.Rename(o.Name(), o.path)
	}
	if err != nil {
		_ = os.Remove(o.Name())
		return errs.New(errs.Resource, "cannot complete %s: %w", o.path, err)
	}
	return nil
}

func (o *output) abandon() {
	_ = o.Close()
	_ = os.Remove(o.Name())
}
