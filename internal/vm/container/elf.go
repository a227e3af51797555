package container

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// machines are the processors whose programs run here.
var machines = map[string][]elf.Machine{
	"amd64": {elf.EM_X86_64},
	"arm64": {elf.EM_AARCH64},
}

const (
	maxScripts = 4   // interpreters of interpreters
	scriptLine = 256 // bytes of the line with the interpreter
)

// checkProgram refuses a program, a path inside root, that cannot be executed
// here, with the reason that the kernel does not give.
func checkProgram(root, path string) error {
	r, err := os.Open(root)
	if err != nil {
		return err
	}
	defer r.Close()
	of := ""
	for range maxScripts {
		next, err := checkFile(r, path, of)
		if next == "" || err != nil {
			return err
		}
		path, of = next, path
	}
	return errs.New(errs.Invalid, "%s is a script of a script of a script", path)
}

// checkFile checks one file and returns what interprets it, "" for nothing.
func checkFile(root *os.File, path, of string) (interpreter string, err error) {
	f, err := openIn(root, path)
	if errors.Is(err, unix.ENOENT) && of != "" {
		return "", errs.New(errs.NotFound, "%s needs %s, which the file system does not have", of, path)
	}
	if errors.Is(err, unix.ENOENT) {
		return "", errs.WithRemedy(errs.New(errs.NotFound, "the file system has no %s to run as init", path), "set `vm config init`")
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, scriptLine)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		line, _, _ := bytes.Cut(head[2:], []byte("\n"))
		words := strings.Fields(string(line))
		if len(words) == 0 {
			return "", errs.New(errs.Invalid, "%s is a script that does not say what runs it", path)
		}
		return words[0], nil
	case bytes.HasPrefix(head, []byte(elf.ELFMAG)):
		return checkELF(f, path)
	}
	return "", errs.New(errs.Invalid, "%s is no program: neither ELF nor a script", path)
}

// openIn opens a file as a process with this root would.
func openIn(root *os.File, path string) (*os.File, error) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOCTTY, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is no program: %v", path, st.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// checkELF compares the processor, and returns the dynamic linker.
func checkELF(r io.ReaderAt, path string) (interpreter string, err error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return "", errs.New(errs.Invalid, "%s is no program: %w", path, err)
	}
	if !runs(f.Machine) {
		return "", errs.WithRemedy(errs.New(errs.Unsupported, "%s is a program for %s, and this host has %s", path,
			strings.TrimPrefix(f.Machine.String(), "EM_"), runtime.GOARCH), "use a file system made for this kind of host")
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > unix.PathMax {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return "", errs.New(errs.Invalid, "%s is no program: %w", path, err)
		}
		return unix.ByteSliceToString(b), nil
	}
	return "", nil
}

func runs(m elf.Machine) bool {
	for _, ok := range machines[runtime.GOARCH] {
		if m == ok {
			return true
		}
	}
	return false
}
