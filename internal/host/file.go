// Package host is the seam to the operating system: processes, files, and the
// facts of the machine that minimega runs on.
package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
)

// WriteFile replaces a file in one step: a reader, or a start after a crash,
// sees the old content or the new, never a part.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(perm), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// RemoveTemps removes from a directory what WriteFile and its like leave there
// when their process is killed: `.name.` and a number.
func RemoveTemps(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, ".*.*"))
	failed := []error{err}
	for _, path := range paths {
		number := strings.TrimPrefix(filepath.Ext(path), ".")
		st, err := os.Lstat(path)
		if err == nil && st.Mode().IsRegular() && number != "" && strings.Trim(number, "0123456789") == "" {
			failed = append(failed, os.Remove(path))
		}
	}
	return errors.Join(failed...)
}

// ReadJSON reads a file of at most limit bytes, as an earlier process kept it,
// into what to points to, and reports whether there is one. After an error what
// to points to may be half read.
func ReadJSON(path string, limit int64, to any) (found bool, err error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if st.Size() > limit {
		return true, errs.New(errs.Invalid, "%s cannot be used: it has %d bytes, at most %d are read", path, st.Size(), limit)
	}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		return true, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}

// RemoveFile removes a file, if there is one.
func RemoveFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
