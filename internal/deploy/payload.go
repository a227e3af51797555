package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"minimega/internal/errs"
)

// payload is a file to be sent to many hosts at once.
type payload struct {
	file *os.File
	size int64
	sum  string // SHA-256, in hexadecimal
	mode string // on the other host, as chmod(1) takes it
}

// open opens a regular file and hashes it.
func open(path, mode string) (*payload, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errs.Wrap(errs.NotFound, err)
	}
	p := &payload{file: f, mode: mode}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errs.New(errs.Invalid, "%s is no regular file", path)
	}
	h := sha256.New()
	if err == nil {
		p.size, err = io.Copy(h, f)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.sum = hex.EncodeToString(h.Sum(nil))
	return p, nil
}

// reader reads the file from its beginning, beside other readers.
func (p *payload) reader() io.Reader { return io.NewSectionReader(p.file, 0, p.size) }

func (p *payload) close() {
	if p != nil {
		_ = p.file.Close() // only read
	}
}
