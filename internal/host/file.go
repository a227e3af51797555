// Package host is the seam to the operating system: processes, files, and the
// facts of the machine that minimega runs on.
package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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
