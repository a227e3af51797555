package initrd

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Types of cpio entries, as in the S_IFMT bits of a mode.
const (
	modeType = 0o170000 // mask
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// cpioWriter writes an archive in the "newc" format that the Linux kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). Owner,
// times and inode numbers do not depend on the machine, so equal content makes
// an equal archive.
type cpioWriter struct {
	w   io.Writer
	off int64
	ino uint32
	err error
}

type cpioEntry struct {
	name         string
	mode         uint32
	size         int64
	major, minor uint32 // of a device
}

func (c *cpioWriter) write(p []byte) {
	if c.err != nil {
		return
	}
	n, err := c.w.Write(p)
	c.off += int64(n)
	c.err = err
}

func (c *cpioWriter) pad() {
	if n := (4 - c.off%4) % 4; n > 0 {
		c.write(make([]byte, n))
	}
}

func (c *cpioWriter) header(e cpioEntry) {
	c.ino++
	nlink := 1
	if e.mode&modeType == modeDir {
		nlink = 2
	}
	c.write(fmt.Appendf(nil, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		c.ino, e.mode, 0, 0, nlink, 0, e.size, 0, 0, e.major, e.minor, len(e.name)+1, 0, e.name))
	c.pad()
}

func (c *cpioWriter) dir(name string, perm fs.FileMode) {
	c.header(cpioEntry{name: name, mode: modeDir | uint32(perm.Perm())})
}

func (c *cpioWriter) device(name string, perm, major, minor uint32) {
	c.header(cpioEntry{name: name, mode: modeChar | perm, major: major, minor: minor})
}

func (c *cpioWriter) bytes(name string, mode uint32, data []byte) {
	c.header(cpioEntry{name: name, mode: mode, size: int64(len(data))})
	c.write(data)
	c.pad()
}

// file copies path into the archive. A file that changes its size meanwhile is
// an error: the archive would be out of step.
func (c *cpioWriter) file(name, path string, perm fs.FileMode) error {
	if c.err != nil {
		return c.err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	const limit = 1<<32 - 1 // the size field has 8 hex digits
	if !st.Mode().IsRegular() || st.Size() > limit {
		return fmt.Errorf("%s is no regular file of less than 4 GiB", path)
	}
	c.header(cpioEntry{name: name, mode: modeFile | uint32(perm.Perm()), size: st.Size()})
	if c.err != nil {
		return c.err
	}
	n, err := io.Copy(c.w, io.LimitReader(f, st.Size()))
	c.off += n
	if err != nil {
		return err
	}
	if n != st.Size() {
		return fmt.Errorf("%s shrank while it was read", path)
	}
	c.pad()
	return c.err
}

func (c *cpioWriter) close() error {
	c.ino = 0
	c.header(cpioEntry{name: "TRAILER!!!"})
	return c.err
}
