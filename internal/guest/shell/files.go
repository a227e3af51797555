package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// path makes a name absolute, from the session's directory.
func (s *session) path(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(s.dir, name)
}

func runLs(_ context.Context, s *session, args []string, out io.Writer) error {
	long := len(args) > 0 && args[0] == "-l"
	if long {
		args = args[1:]
	}
	dir := s.dir
	if len(args) > 0 {
		dir = s.path(args[0])
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return listFile(out, st, long)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // gone meanwhile
		}
		if err := listFile(out, info, long); err != nil {
			return err
		}
	}
	return nil
}

func listFile(out io.Writer, st os.FileInfo, long bool) error {
	name := st.Name()
	if st.IsDir() {
		name += "/"
	}
	if !long {
		_, err := fmt.Fprintln(out, name)
		return err
	}
	_, err := fmt.Fprintf(out, "%s %12d %s %s\n", st.Mode(), st.Size(), st.ModTime().UTC().Format("2006-01-02 15:04"), name)
	return err
}

func runCd(_ context.Context, s *session, args []string, _ io.Writer) error {
	dir := "/"
	if len(args) > 0 {
		dir = s.path(args[0])
	}
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is no directory", dir)
	}
	s.dir = dir
	return nil
}

func runPwd(_ context.Context, s *session, _ []string, out io.Writer) error {
	_, err := fmt.Fprintln(out, s.dir)
	return err
}

func runCat(ctx context.Context, s *session, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New("want FILE")
	}
	for _, name := range args {
		if err := copyFile(ctx, out, s.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(ctx context.Context, out io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(out, interruptible{ctx, f})
	return err
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context
	io.Reader
}

func (r interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	return r.Reader.Read(p)
}

func runRm(_ context.Context, s *session, args []string, _ io.Writer) error {
	if len(args) == 0 {
		return errors.New("want FILE")
	}
	for _, name := range args {
		if err := os.Remove(s.path(name)); err != nil {
			return err
		}
	}
	return nil
}
