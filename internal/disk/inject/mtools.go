package inject

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"minimega/internal/errs"
	"minimega/internal/host"
)

// fat writes to a FAT file system without mounting it, by the mtools.
type fat struct {
	ctx   context.Context
	drive string // FILE@@OFFSET
}

func newFAT(ctx context.Context, file string, p Partition) *fat {
	return &fat{ctx, fmt.Sprintf("%s@@%d", file, p.Start)}
}

// run runs one of the mtools. It is asked nothing: what it would ask fails.
func (f *fat) run(program string, args ...string) error {
	path, err := host.FindProgram(program)
	if err != nil {
		return errs.WithRemedy(errs.New(errs.Unsupported, "%s is not installed", program), "install the package mtools")
	}
	cmd := exec.CommandContext(f.ctx, path, append([]string{"-i", f.drive}, args...)...)
	cmd.Env = append(os.Environ(), "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", program, oneLine(out), err)
	}
	return nil
}

// name writes a path of the image as the mtools want it.
func (f *fat) name(s string) (string, error) {
	if strings.ContainsAny(s, "*?[]:\\") {
		return "", errs.New(errs.Invalid, "a FAT file system cannot have the name %q", s)
	}
	return "::/" + strings.TrimPrefix(clean(s), "."), nil
}

func (f *fat) isDir(name string) bool {
	if clean(name) == "." {
		return true
	}
	n, err := f.name(name)
	return err == nil && f.run("mdir", "-b", n+"/") == nil
}

func (f *fat) exists(name string) bool {
	n, err := f.name(name)
	return err == nil && f.run("mattrib", n) == nil
}

func (f *fat) directory(name string) error {
	if f.isDir(name) {
		return nil
	}
	if err := f.directory(path.Dir(clean(name))); err != nil {
		return err
	}
	n, err := f.name(name)
	if err != nil {
		return err
	}
	return f.run("mmd", n)
}

func (f *fat) put(src, dst string) error {
	dst = clean(dst)
	if f.isDir(dst) {
		dst = clean(path.Join(dst, filepath.Base(src)))
	}
	top, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	return filepath.WalkDir(top, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		to := clean(path.Join(dst, filepath.ToSlash(rel)))
		switch e.Type() {
		case fs.ModeDir:
			return f.directory(to)
		case 0:
			return f.putFile(p, to)
		}
		return fmt.Errorf("%s is neither file nor directory, and FAT knows nothing else", p)
	})
}

func (f *fat) putFile(src, dst string) error {
	if err := f.directory(path.Dir(dst)); err != nil {
		return err
	}
	to, err := f.name(dst)
	if err != nil {
		return err
	}
	return f.run("mcopy", "-o", src, to)
}

func (f *fat) remove(name string) error {
	n, err := f.name(name)
	switch {
	case err != nil:
		return err
	case clean(name) == ".":
		return fmt.Errorf("the root of the image cannot be deleted")
	case f.isDir(name):
		return f.run("mdeltree", n)
	case !f.exists(name):
		return &os.PathError{Op: "delete in the image", Path: name, Err: fs.ErrNotExist}
	}
	return f.run("mdel", n)
}
