package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"minimega/internal/errs"
)

// Header is what the first bytes of an image tell. Format is QEMU's name of it.
type Header struct {
	Format        string
	VirtualSize   int64  // bytes, of qcow2 and raw; 0 where it takes QEMU to tell
	Backing       string // absolute path of the backing file, "" for none
	BackingFormat string // "" if the image does not say
}

const (
	sector      = 512
	maxChain    = 64 // images over each other; QEMU gets slow long before
	probeLength = 4096
)

// Inspect reads the header of an image without running a program. A file that
// can be no image is an error: what has no known header must consist of whole
// sectors to count as raw.
func Inspect(path string) (*Header, error) {
	// Non-blocking: a named pipe must not hold us up.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, wordOpen(err, path)
	}
	defer f.Close()
	size, err := sizeOf(f)
	if err != nil {
		return nil, err
	}
	h, err := inspect(f, size, filepath.Dir(path))
	if err != nil {
		return nil, errs.New(errs.Invalid, "%s is no disk image: %w", path, err)
	}
	return h, nil
}

// sizeOf accepts files and block devices.
func sizeOf(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		return st.Size(), nil
	case mode.IsDir():
		return 0, errs.New(errs.Invalid, "%s is no disk image: it is a directory", f.Name())
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return f.Seek(0, io.SeekEnd)
	}
	return 0, errs.New(errs.Invalid, "%s is no disk image: neither a file nor a block device", f.Name())
}

func inspect(r io.ReaderAt, size int64, dir string) (*Header, error) {
	buf := make([]byte, probeLength)
	n, err := r.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	format := formatOf(buf[:n])
	switch {
	case format == "qcow2":
		return inspectQcow2(r, dir)
	case format != "":
		return &Header{Format: format}, nil
	case size == 0:
		return nil, errors.New("it is empty")
	case size%sector != 0:
		return nil, fmt.Errorf("no known format, and %d bytes are not whole sectors of a raw disk", size)
	}
	return &Header{Format: "raw", VirtualSize: size}, nil
}

func inspectQcow2(r io.ReaderAt, dir string) (*Header, error) {
	q, err := parseQcow2(r)
	switch {
	case err != nil:
		return nil, err
	case q.dataFile:
		return nil, errors.New("qcow2 images that keep their data in another file are not supported")
	case q.backing == "":
		return &Header{Format: "qcow2", VirtualSize: q.size}, nil
	}
	backing, err := localPath(q.backing)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(backing) {
		backing = filepath.Join(dir, backing)
	}
	return &Header{Format: "qcow2", VirtualSize: q.size, Backing: backing, BackingFormat: q.backingFormat}, nil
}

// localPath refuses a name that QEMU would take for something else than a file
// on this host: "nbd://…", "json:…", "ssh:…".
func localPath(name string) (string, error) {
	proto, _, found := strings.Cut(name, ":")
	if found && !strings.Contains(proto, "/") {
		return "", fmt.Errorf("backing file %q is no plain path", name)
	}
	return name, nil
}

// magics are the headers that QEMU probes for (block/*.c, *_probe).
var magics = []struct {
	format string
	at     int
	magic  string
}{
	{"qcow2", 0, qcowMagic},
	{"qed", 0, "QED\x00"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vpc", 0, "conectix"},
	{"luks", 0, "LUKS\xba\xbe"},
	{"parallels", 0, "WithoutFreeSpace"},
	{"parallels", 0, "WithouFreSpacExt"},
	{"vdi", 0x40, "\x7f\x10\xda\xbe"},
}

// formatOf returns the format of the first bytes of an image, "" for none
// known.
func formatOf(b []byte) string {
	for _, m := range magics {
		if len(b) >= m.at && bytes.HasPrefix(b[m.at:], []byte(m.magic)) {
			return m.format
		}
	}
	return ""
}

// Chain returns the headers of an image and of all below it, and refuses a
// chain that does not end, misses a file or contains one that is no image. So
// an image cannot show the guest a file that is none, such as /etc/shadow.
func Chain(path string) ([]Header, error) {
	var chain []Header
	for at := path; at != ""; {
		h, err := Inspect(at)
		if err != nil && len(chain) > 0 {
			return nil, fmt.Errorf("backing file of %s: %w", path, err)
		}
		if err != nil {
			return nil, err
		}
		if chain = append(chain, *h); len(chain) > maxChain {
			return nil, errs.New(errs.Invalid, "%s has more than %d backing files over each other", path, maxChain)
		}
		at = h.Backing
	}
	return chain, nil
}

// QEMU's locks on an image (block/file-posix.c): byte 100+n is held by who
// uses permission n, byte 200+n by who does not share it.
const (
	lockUse     = 100
	lockUnshare = 200
	permWrite   = 1
	permAll     = 64
)

// InUse reports whether a QEMU has the image open.
func InUse(path string) (bool, error) { return locked(path, lockUse, permAll+lockUnshare-lockUse) }

// Free tells whether a VM could open the image now: nil, or an error of kind
// State. With write it must be alone (QEMU itself lets a VM write to what
// others use below an overlay), else it only must not be written to.
func Free(path string, write bool) error {
	written, err := locked(path, lockUse+permWrite, 1)
	if err != nil {
		return err
	}
	if written {
		return errs.WithRemedy(errs.New(errs.State, "disk image %s is being written by another process", path),
			"stop the VM that has it open, or use a copy")
	}
	if !write {
		return nil
	}
	used, err := locked(path, lockUse, permAll)
	if err == nil && used {
		err = errs.WithRemedy(errs.New(errs.State, "disk image %s is in use by another process", path),
			"use a copy, launch with snapshot true, or stop the VM that has it open")
	}
	return err
}

// locked asks the kernel whether anybody holds a lock in the range.
func locked(path string, start, length int64) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, wordOpen(err, path)
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: start, Len: length}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l); err != nil {
		return false, fmt.Errorf("query locks of %s: %w", path, err)
	}
	return l.Type != unix.F_UNLCK, nil
}
