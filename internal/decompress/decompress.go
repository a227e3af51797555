// Package decompress reads what gzip, bzip2, zstd or xz have made, with bounded
// memory. It does not bound how much comes out.
package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"minimega/internal/errs"
)

// maxWindow bounds the memory of a zstd decoder.
const maxWindow = 128 << 20

// Reader looks at the first bytes to tell what r is, and returns what was
// compressed, or r as it is. Close the result.
func Reader(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	magic, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case strings.HasPrefix(string(magic), "\x1f\x8b"):
		return gzip.NewReader(b)
	case strings.HasPrefix(string(magic), "\x28\xb5\x2f\xfd"), len(magic) > 3 && magic[0]&0xf0 == 0x50 && string(magic[1:4]) == "\x2a\x4d\x18":
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case strings.HasPrefix(string(magic), "BZh"):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case strings.HasPrefix(string(magic), "\xfd7zXZ"):
		return unxz(ctx, b)
	}
	return io.NopCloser(b), nil
}

// process is a program that writes what is read here.
type process struct {
	io.ReadCloser
	cmd  *exec.Cmd
	said bytes.Buffer // on standard error, by a program that says little
	once sync.Once
	err  error
}

// unxz runs xz, whose format no library at hand reads.
func unxz(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	path, err := exec.LookPath("xz")
	if err != nil {
		return nil, errs.WithRemedy(errs.New(errs.Unsupported, "compressed with xz, and there is no xz program here"), "install xz-utils, or decompress it first")
	}
	cmd := exec.CommandContext(ctx, path, "--decompress", "--stdout", "--memlimit-decompress=256MiB")
	cmd.Stdin = r
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p := &process{ReadCloser: out, cmd: cmd}
	cmd.Stderr = &p.said
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return p, nil
}

func (p *process) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if errors.Is(err, io.EOF) {
		if failed := p.wait(); failed != nil {
			if said := strings.TrimSpace(p.said.String()); said != "" {
				failed = errors.New(said)
			}
			return n, errs.New(errs.Invalid, "decompress: %w", failed)
		}
	}
	return n, err
}

func (p *process) wait() error {
	p.once.Do(func() { p.err = p.cmd.Wait() })
	return p.err
}

// Close ends the program, which then has nobody to write to.
func (p *process) Close() error {
	_ = p.ReadCloser.Close() // it may be closed by the wait
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.wait()             // of interest only to who reads to the end
	return nil
}
