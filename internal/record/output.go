package record

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// output is a recording's file. It is opened before anything else happens, so
// that a bad path is told at once, but an older recording of that name stays
// as it was until the new one really starts.
type output struct {
	*os.File
	fresh bool // made by us
	job   *job
}

// openOutput opens path for writing. What is there and is not a plain file is refused.
func openOutput(j *job) (*output, error) {
	const flags = os.O_WRONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK // a fifo must not hold us up
	f, err := os.OpenFile(j.path, flags|os.O_CREATE|os.O_EXCL, 0o644)
	fresh := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(j.path, flags, 0)
	}
	if err != nil {
		return nil, outputError(j.path, err)
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		_ = f.Close()
		return nil, errs.New(errs.Invalid, "cannot record to %s: it is not a plain file", j.path)
	}
	if ours, err := host.Claim(f, host.ClaimTime); !ours {
		_ = f.Close()
		if err != nil {
			return nil, outputError(j.path, err)
		}
		return nil, errs.New(errs.State, "cannot record to %s: it is being written by another recording", j.path)
	}
	return &output{File: f, fresh: fresh, job: j}, nil
}

func outputError(path string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	_, direrr := os.Stat(filepath.Dir(path))
	switch {
	case errors.Is(err, fs.ErrNotExist) && direrr != nil:
		return errs.WithRemedy(errs.New(errs.NotFound, "cannot record to %s: there is no directory %s", path, filepath.Dir(path)), "make the directory first")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		return errs.New(errs.Permission, "cannot record to %s: %w", path, err)
	case errors.Is(err, unix.ENOSPC):
		return errs.New(errs.Resource, "cannot record to %s: %w", path, err)
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENXIO):
		return errs.New(errs.Invalid, "cannot record to %s: it is not a plain file", path)
	}
	return errs.New(errs.Invalid, "cannot record to %s: %w", path, err)
}

// begin empties the file: the recording starts.
func (o *output) begin() error { return o.Truncate(0) }

// length is that of the file.
func (o *output) length() int64 { return o.job.bytes.Load() }

// abandon leaves things as they were before openOutput.
func (o *output) abandon() {
	_ = o.Close()
	if o.fresh {
		_ = os.Remove(o.job.path)
	}
}

// Write counts what is written.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.File.Write(p)
	o.job.bytes.Add(int64(n))
	return n, err
}
