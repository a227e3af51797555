// Package host is the seam to the operating system: processes, files, and the
// facts of the machine that minimega runs on.
package host

import (
	"errors"
	"os"
	"path/filepath"
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
