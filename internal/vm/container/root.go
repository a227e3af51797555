package container

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// directories takes a path as it is.
type directories struct{}

// Root returns the directory at path.
func (directories) Root(_ context.Context, path string) (Root, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Root{}, host.Missing("filesystem", path)
	case err != nil:
		return Root{}, errs.New(errs.Permission, "filesystem: %w", err)
	case !st.IsDir():
		return Root{}, errs.New(errs.Invalid, "filesystem %s is not a directory", path)
	}
	return Root{Lower: []string{path}}, nil
}
